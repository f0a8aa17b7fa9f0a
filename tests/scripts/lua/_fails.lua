counter = (counter or 0) + 1
error('loading failed ' .. counter)
