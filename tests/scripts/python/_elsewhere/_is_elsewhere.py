FOUND = "elsewhere"
