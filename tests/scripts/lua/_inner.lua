InnerGlobal = "inner"
return {...}
