print("Content-Type: text/plain\n")
print(pcall(require, "surely.not.there"))
print(package.path)
require("surely_not_there")
