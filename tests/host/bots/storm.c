/* Keeps up to N processes alive that replace themselves by their children all the time, deaf to SIGTERM. */
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void relay(void) {
  struct timespec pause = {0, 20 * 1000 * 1000}; /* an init that reaps slowly must not run out of pids */
  for (;;) {
    nanosleep(&pause, NULL);
    if (fork() > 0) _exit(0); /* the child goes on; where fork is refused, so does the parent */
  }
}

int main(int argc, char **argv) {
  signal(SIGTERM, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);
  for (int left = argc > 1 ? atoi(argv[1]) : 200; left > 0; left--)
    if (fork() == 0) relay();
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) pause();
}
