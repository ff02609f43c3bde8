/* Forks N grandchildren before it does anything else, tells so by one line, and waits with all of them. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  for (int left = argc > 1 ? atoi(argv[1]) : 200; left > 0; left--) {
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
      if (fork() == 0)
        for (;;) pause();
      _exit(0);
    }
    waitpid(child, NULL, 0);
  }
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) pause();
}
