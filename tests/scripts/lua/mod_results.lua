-- query: 1
-- query: 2
print("Content-Type: text/plain\n")
print(select(2, require("_outer")))
print(select(2, require("_outer")))
print(select(2, require("_inner")))
print(require("string") == string, select("#", require("string")))
print((pcall(require, "_no_such")))
print(InnerGlobal, OuterGlobal)
package.loaded._outer = nil
print(select(2, require("_outer")))
print(select("#", require("_alone")), select("#", require("_alone")))
