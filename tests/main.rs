//! Whole programs, tested from outside: real sockets, real web servers, the real interpreter beside ours.
//!
//! * `audit`: what scripts leave behind
//! * `forked`: requests in children of a warm interpreter
//! * `fidelity`: every script in `scripts/` answers as under CGI, the first time and the tenth
//! * `modes`: how the runner finds out what it is to be; errors of use
//! * `scripts_by_name`: scripts that requests name, kept inside a root
//! * `access_log`: a line for each request
//! * `affinity`: sessions that stay with their interpreter
//! * `accept`: accept loops inside scripts, and what else the module `fcgi` offers
//! * `applications`: scripts that give a function, called by the rules of WSAPI
//! * `asgi`: applications by ASGI, many requests at once
//! * `limits`: time and memory of one request, levels of isolation
//! * `conformance`: the same programs in all languages, started in all ways
//! * `command_line`: the command line of `lua`, beside the real one
//! * `changes`: scripts that change on disk, or are broken
//! * `slow_log`: where requests are that run for long
//! * `system`: users, limits, environment, log, the service manager
//! * `status`: status pages and ping
//! * `workers`: processes, threads, signals, stopping
//! * `pools`: how many processes serve, when they are replaced, what becomes of their connections
//! * `reload`: programs, options and scripts that are replaced under load
//! * `watch`: source files that reload the server when they change
