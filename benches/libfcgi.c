/* The programs of this directory for the C library of the FastCGI developer's kit, to be measured beside ours:
 *
 *     libfcgi SOCKET_PATH PROCESSES hello|env|echo|big
 *
 * Each process accepts by itself, as under a process manager. */
#include <fcgiapp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const names[] = {"REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "SCRIPT_NAME", "SCRIPT_FILENAME",
    "CONTENT_LENGTH", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "GATEWAY_INTERFACE"};

static void put_param(FCGX_Request *request, const char *name)
{
    const char *value = FCGX_GetParam(name, request->envp);
    FCGX_FPrintF(request->out, "%s=%s\n", name, value ? value : "");
}

static void answer(FCGX_Request *request, const char *program)
{
    char block[8192];
    int count, number;

    if (strcmp(program, "hello") == 0) {
        FCGX_PutS("Content-Type: text/plain\n\nHello world!\n", request->out);
    } else if (strcmp(program, "env") == 0) {
        FCGX_PutS("Content-Type: text/plain\n\n", request->out);
        for (number = 0; number < 10; number++)
            put_param(request, names[number]);
        for (number = 11; number < 30; number++) {
            snprintf(block, sizeof block, "HTTP_X_%d", number);
            put_param(request, block);
        }
    } else if (strcmp(program, "echo") == 0) {
        FCGX_PutS("Content-Type: application/octet-stream\n\n", request->out);
        while ((count = FCGX_GetStr(block, sizeof block, request->in)) > 0)
            FCGX_PutStr(block, count, request->out);
    } else {
        FCGX_PutS("Content-Type: application/octet-stream\n\n", request->out);
        for (number = 0; number < 4096; number++)
            block[number] = "0123456789abcdef"[number % 16];
        for (number = 0; number < 256; number++)
            FCGX_PutStr(block, 4096, request->out);
    }
}

int main(int argc, char **argv)
{
    FCGX_Request request;
    int listener, number;

    if (argc != 4 || FCGX_Init() != 0 || (listener = FCGX_OpenSocket(argv[1], 1024)) < 0)
        return 2;
    /* A client that leaves is no reason to end. */
    signal(SIGPIPE, SIG_IGN);
    for (number = atoi(argv[2]); number > 0; number--) {
        if (fork() == 0) {
            FCGX_InitRequest(&request, listener, 0);
            while (FCGX_Accept_r(&request) == 0) {
                answer(&request, argv[3]);
                FCGX_Finish_r(&request);
            }
            return 0;
        }
    }
    while (wait(NULL) > 0)
        continue;
    return 0;
}
