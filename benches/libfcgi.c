/* The same programs with the C library of the 1990s, for comparison: the workload is the first argument. */
#include <fcgi_stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static char buffer[1 << 20];

int main(int argc, char **argv) {
    const char *workload = argc > 1 ? argv[1] : "hello";
    memset(buffer, 'x', sizeof buffer);
    while (FCGI_Accept() >= 0) {
        printf("Content-Type: text/plain\r\n\r\n");
        if (strcmp(workload, "env") == 0) {
            for (char **each = environ; *each; each++) printf("%s\n", *each);
        } else if (strcmp(workload, "echo") == 0) {
            size_t count;
            while ((count = fread(buffer, 1, sizeof buffer, stdin)) > 0) fwrite(buffer, 1, count, stdout);
        } else if (strcmp(workload, "big") == 0) {
            fwrite(buffer, 1, sizeof buffer, stdout);
        } else {
            printf("Hello world!\n");
        }
    }
    return 0;
}
