/* What one or several cores can do at most: prints one JSON object. Usage: roof THREADS. Build: cc -O3 -march=native -pthread. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef float v4 __attribute__((vector_size(16)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v8u __attribute__((vector_size(32), aligned(4)));

#define STEPS 2000000L
#define READ_BYTES (256L << 20)
#define CACHED_FLOATS (96L << 10)
#define MEMORY_FLOATS (15L << 20)
#define MAX_THREADS 64

static volatile float sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Twelve independent chains fill two pipes of latency four or five. */
#define CHAINS(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)

/* acc = acc·m + c, which the compiler contracts to FMA where the processor has it. */
#define FMA_LOOP(NAME, V)                                    \
  static double NAME(void) {                                 \
    V acc[12], m, c;                                         \
    for (unsigned l = 0; l < sizeof(V) / 4; l++) m[l] = 0.999f, c[l] = 0.001f; \
    for (int j = 0; j < 12; j++) acc[j] = c * (float)j;      \
    __asm__ volatile("" : "+x"(m), "+x"(c));                 \
    for (long i = 0; i < STEPS; i++) { CHAINS(FMA_STEP) }    \
    for (int j = 0; j < 12; j++) sink += acc[j][0];          \
    return 2.0 * 12 * (sizeof(V) / 4) * STEPS;               \
  }
#define FMA_STEP(J) acc[J] = acc[J] * m + c;

FMA_LOOP(fma128, v4)
FMA_LOOP(fma256, v8)

/* Seven chains of products and seven of sums: nothing to contract. The factor is 1, so that nothing becomes denormal. */
static double mulAdd128(void) {
  v4 acc[14], m = {1, 1, 1, 1}, c = {0.001f, 0.001f, 0.001f, 0.001f};
  for (int j = 0; j < 14; j++) acc[j] = c * (float)(j + 1);
  __asm__ volatile("" : "+x"(m), "+x"(c));
#define MUL_STEP(J) acc[J] = J % 2 ? acc[J] * m : acc[J] + c;
  for (long i = 0; i < STEPS; i++) { CHAINS(MUL_STEP) MUL_STEP(12) MUL_STEP(13) }
  for (int j = 0; j < 14; j++) sink += acc[j][0];
  return 14.0 * 4 * STEPS;
}

static _Thread_local float *a, *b, *out;

static double readMemory(void) {
  v8 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  for (long i = 0; i < READ_BYTES / 4; i += 32) {
    s0 += *(v8u *)(a + i);
    s1 += *(v8u *)(a + i + 8);
    s2 += *(v8u *)(a + i + 16);
    s3 += *(v8u *)(a + i + 24);
  }
  sink += (s0 + s1 + s2 + s3)[0];
  return READ_BYTES;
}

static double add(long n) {
  for (long i = 0; i < n; i += 8) *(v8u *)(out + i) = *(v8u *)(a + i) + *(v8u *)(b + i);
  sink += out[n / 2];
  return 12.0 * n;
}
static double addCached(void) {
  double bytes = 0;
  for (int i = 0; i < 200; i++) bytes += add(CACHED_FLOATS);
  return bytes;
}
static double addMemory(void) { return add(MEMORY_FLOATS); }

static const struct {
  const char *name;
  double (*run)(void);
} LOOPS[] = {
    {"fma128", fma128},         {"mulAdd128", mulAdd128}, {"fma256", fma256},
    {"readMemory", readMemory}, {"addCached", addCached}, {"addMemory", addMemory},
};
#define LOOP_COUNT (sizeof LOOPS / sizeof *LOOPS)
#define ROUNDS 7

static int threads;
static pthread_barrier_t barrier;
static double amounts[MAX_THREADS], starts[MAX_THREADS], ends[MAX_THREADS];
static double rates[LOOP_COUNT][ROUNDS];

static void *work(void *id) {
  long me = (long)id;
  a = malloc(READ_BYTES), b = malloc(4 * MEMORY_FLOATS), out = malloc(4 * MEMORY_FLOATS);
  if (!a || !b || !out) exit(1);
  for (long i = 0; i < READ_BYTES / 4; i++) a[i] = (float)(i % 1000) / 1000;
  for (long i = 0; i < MEMORY_FLOATS; i++) b[i] = out[i] = 0.5f;
  for (unsigned loop = 0; loop < LOOP_COUNT; loop++)
    for (int round = -1; round < ROUNDS; round++) {
      pthread_barrier_wait(&barrier);
      starts[me] = now();
      amounts[me] = LOOPS[loop].run();
      ends[me] = now();
      pthread_barrier_wait(&barrier);
      if (me || round < 0) continue;
      double total = 0, first = starts[0], last = ends[0];
      for (int t = 0; t < threads; t++) {
        total += amounts[t];
        if (starts[t] < first) first = starts[t];
        if (ends[t] > last) last = ends[t];
      }
      rates[loop][round] = total / (last - first) * 1e-9;
    }
  return NULL;
}

static int ascending(const void *x, const void *y) {
  double d = *(const double *)x - *(const double *)y;
  return (d > 0) - (d < 0);
}

int main(int argc, char **argv) {
  threads = argc > 1 ? atoi(argv[1]) : 1;
  if (threads < 1 || threads > MAX_THREADS) return 2;
  pthread_t ids[MAX_THREADS];
  pthread_barrier_init(&barrier, NULL, threads);
  for (long t = 1; t < threads; t++) pthread_create(&ids[t], NULL, work, (void *)t);
  work(0);
  for (int t = 1; t < threads; t++) pthread_join(ids[t], NULL);
  printf("{\"threads\": %d", threads);
  for (unsigned loop = 0; loop < LOOP_COUNT; loop++) {
    qsort(rates[loop], ROUNDS, sizeof(double), ascending);
    printf(", \"%s\": %.2f", LOOPS[loop].name, rates[loop][ROUNDS / 2]);
  }
  printf("}\n");
  return 0;
}
