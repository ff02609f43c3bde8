/* N threads that sleep, with SIGTERM blocked in every one of them. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeper(void *unused) {
  for (;;) pause();
  return unused;
}

int main(int argc, char **argv) {
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, NULL);
  for (int left = argc > 1 ? atoi(argv[1]) : 50; left > 0; left--) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleeper, NULL)) return 1;
  }
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) pause();
}
