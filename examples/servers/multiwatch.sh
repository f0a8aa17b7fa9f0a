#!/bin/sh
# spawn-fcgi binds the socket; multiwatch starts processes that share it, and restarts those that die. --workers does
# the same without it.
exec spawn-fcgi -n -s /run/app.sock -- /usr/bin/multiwatch -f 2 -- /usr/local/bin/fcgi-lua /srv/www/app.lua
