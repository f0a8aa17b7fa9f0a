#!/bin/sh
# To try out socket activation without units: systemd-socket-activate binds the socket, and starts the program with the
# first connection.
exec systemd-socket-activate -l /run/app.sock /usr/local/bin/fcgi-lua /srv/www/app.lua
