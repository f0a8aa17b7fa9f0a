io.write("Content-Type: application/octet-stream\n\n", io.read("*a"))
