/* Runs a GGUF through prebuilt libraries of llama.cpp: a prefill, then decode steps. Prints one
 * JSON line a round; on aarch64 it also makes the phase marks that counter.c reads.
 *
 *   llama DIR GGML LLAMA BACKEND MODEL THREADS ROUNDS PREFILL DECODE
 *
 * DIR holds the libraries GGML and LLAMA; BACKEND is one of them too, or "best". Every decode step
 * takes the same token. Phases: 0 before, 1 prefill, 2 decode.
 *
 * Built without llama.cpp's headers. The two parameter structures are taken from the library's
 * own defaults and handed back. That they are declared too large does no harm: AAPCS64 passes
 * such structures by reference, the x86-64 ABI as the last thing on the stack. The first word of
 * the context's is n_ctx.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __aarch64__
#define MARK(k) __asm__ volatile("hint #" #k ::: "memory")
#else
#define MARK(k)
#endif

struct parameters {
    uint32_t words[512];
};
struct batch {
    int32_t n_tokens;
    int32_t *tokens;
    float *embeddings;
    int32_t *positions;
    int32_t *n_sequences;
    int32_t **sequences;
    int8_t *wants_logits;
    uint64_t spare[4];
};

static void *library(const char *dir, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!handle) {
        fprintf(stderr, "llama: %s\n", dlerror());
        exit(1);
    }
    return handle;
}

static void *function(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (!address) {
        fprintf(stderr, "llama: the library has no %s\n", name);
        exit(1);
    }
    return address;
}

static void fail(const char *what)
{
    fprintf(stderr, "llama: %s failed\n", what);
    exit(1);
}

static void say_nothing(int level, const char *text, void *data)
{
    (void)level, (void)text, (void)data;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static struct batch (*batch_of)(int32_t *, int32_t);
static int (*decode)(void *, struct batch);
static float *(*logits_of)(void *, int);

/* Runs tokens and returns the logits after the last one. */
static const float *step(void *context, int32_t *tokens, int n)
{
    if (decode(context, batch_of(tokens, n)))
        fail("a step");
    return logits_of(context, -1);
}

int main(int argc, char **argv)
{
    if (argc != 10) {
        fprintf(stderr, "usage: llama DIR GGML LLAMA BACKEND MODEL THREADS ROUNDS PREFILL DECODE\n");
        return 2;
    }
    const char *dir = argv[1];
    int n_threads = atoi(argv[6]), n_rounds = atoi(argv[7]);
    int n_prefill = atoi(argv[8]), n_decode = atoi(argv[9]);

    library(dir, "libggml-base.so");
    void *ggml = library(dir, argv[2]);
    void *llama = library(dir, argv[3]);
    void *(*load_backend)(const char *) = function(ggml, "ggml_backend_load");
    void (*load_best)(const char *) = function(ggml, "ggml_backend_load_all_from_path");
    void (*log_to)(void (*)(int, const char *, void *), void *) = function(llama, "llama_log_set");
    struct parameters (*model_defaults)(void) = function(llama, "llama_model_default_params");
    void *(*load_model)(const char *, struct parameters) = function(llama, "llama_model_load_from_file");
    struct parameters (*context_defaults)(void) = function(llama, "llama_context_default_params");
    void *(*new_context)(void *, struct parameters) = function(llama, "llama_init_from_model");
    void *(*memory_of)(void *) = function(llama, "llama_get_memory");
    void (*clear)(void *, bool) = function(llama, "llama_memory_clear");
    const void *(*vocabulary)(void *) = function(llama, "llama_model_get_vocab");
    int32_t (*n_tokens)(const void *) = function(llama, "llama_vocab_n_tokens");
    void (*set_threads)(void *, int, int) = function(llama, "llama_set_n_threads");
    batch_of = function(llama, "llama_batch_get_one");
    decode = function(llama, "llama_decode");
    logits_of = function(llama, "llama_get_logits_ith");

    log_to(say_nothing, NULL);
    if (!strcmp(argv[4], "best")) {
        load_best(dir);
    } else {
        char backend[1024];
        snprintf(backend, sizeof backend, "%s/%s", dir, argv[4]);
        if (!load_backend(backend))
            fail("loading the CPU backend");
    }
    void *model = load_model(argv[5], model_defaults());
    if (!model)
        fail("loading the model");
    struct parameters parameters = context_defaults();
    parameters.words[0] = 256;
    void *context = new_context(model, parameters);
    if (!context)
        fail("making a context");
    set_threads(context, n_threads, n_threads);

    int n_vocab = n_tokens(vocabulary(model));
    int32_t *prompt = calloc(n_prefill, sizeof *prompt);
    for (int i = 0; i < n_prefill; i++)
        prompt[i] = (1000 + 37 * i) % n_vocab;

    for (int round = 0; round < n_rounds; round++) {
        clear(memory_of(context), true);
        MARK(96);
        double start = seconds();
        const float *logits = step(context, prompt, n_prefill);
        double prefilled = seconds();
        MARK(97);
        for (int i = 0; i < n_decode; i++)
            logits = step(context, prompt, 1);
        double decoded = seconds();
        MARK(98);
        int best = 0;
        for (int i = 1; i < n_vocab; i++)
            if (logits[i] > logits[best])
                best = i;
        printf("{\"prefill_ms\": %.3f, \"decode_tokens_per_second\": %.2f, \"token\": %d}\n",
               1e3 * (prefilled - start), n_decode / (decoded - prefilled), best);
        fflush(stdout);
    }
    /* The library's threads need no orderly end. */
    _exit(0);
}
