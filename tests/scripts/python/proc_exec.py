# query: execv
# query: missing
import os

print("Content-Type: text/plain\n", flush=True)
if os.environ["QUERY_STRING"] == "missing":
    try:
        os.execv("/no/such/program", ["x"])
    except FileNotFoundError as e:
        print(e)
else:
    os.execve("/bin/sh", ["sh", "-c", "echo $QUERY_STRING $OWN; exit 6"], {**os.environ, "OWN": "own"})
print("only when it is missing")
