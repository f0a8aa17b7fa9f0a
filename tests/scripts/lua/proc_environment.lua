-- query: a=1&b=2
print("Content-Type: text/plain\n")
print(os.getenv("QUERY_STRING"), os.getenv("NO_SUCH_VARIABLE"), os.getenv("PATH") ~= nil, os.getenv("HOME") ~= nil)
io.stdout:flush()
os.execute("echo $QUERY_STRING; env | grep -v -e ^_= -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sort | grep -e ^SCRIPT -e ^REQUEST -e ^GATEWAY -e ^HTTP")
local p = io.popen("pwd; umask; ulimit -n; echo $-")
print((p:read("a"):gsub("[^\n]*/", "")))
