error("before a header")
