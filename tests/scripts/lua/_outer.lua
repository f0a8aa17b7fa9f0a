OuterGlobal = "outer"
return {inner = require("_inner")}
