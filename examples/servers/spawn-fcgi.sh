#!/bin/sh
# spawn-fcgi binds the socket, and the program finds it as its descriptor 0; nginx.conf and the others connect to it.
# --workers starts as many processes as wanted, and restarts them: -F is not needed. -M 0660 and -G www-data let the web server's user
# connect.
exec spawn-fcgi -n -s /run/app.sock -- /usr/local/bin/fcgi-lua --workers 2 /srv/www/app.lua
