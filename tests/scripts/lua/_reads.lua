print("Content-Type: text/plain\n")
return {query = os.getenv("QUERY_STRING"), body = io.read("a")}
