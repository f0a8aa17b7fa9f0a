io.write("Content-Type: application/octet-stream\n\n", ("x"):rep(1048576))
