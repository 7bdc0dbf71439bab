/* Plugin for qemu-aarch64 (user mode, plugin interface 1: QEMU 5.0 to 8.2): how often each block
 * of instructions of a single-threaded program ran, phase by phase.
 *
 *   -plugin ./counter.so,out=FILE
 *
 * HINT #96+k (a NOP on every core) ends phase k: its counts are written and set to zero.
 *
 * Output, one record a line:
 *   phase K                   begins the records of phase K ("end": after the last mark)
 *   block ADDRESS RUNS CODE   address in hex, decimal count, the instructions as 8 hex digits each
 *   map START OFFSET PATH     at the end: where the program's files were mapped
 *
 * The interface is declared here because Debian does not package its header.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
typedef void (*translated_fn)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed_fn)(unsigned vcpu, void *data);
typedef void (*exit_fn)(plugin_id, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_fn);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, executed_fn, int flags, void *data);
void qemu_plugin_register_atexit_cb(plugin_id, exit_fn, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

enum { OP_ADD = 0, FLAGS_NONE = 0 };
#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;

struct block {
    uint64_t address, runs;
    struct block *next;
    uint32_t n;
    uint32_t code[];
};

#define BUCKETS (1u << 16)
static struct block *blocks[BUCKETS];
static FILE *out;

static void write_phase(const char *name)
{
    fprintf(out, "phase %s\n", name);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct block *block = blocks[i]; block; block = block->next) {
            if (!block->runs)
                continue;
            fprintf(out, "block %llx %llu ", (unsigned long long)block->address,
                    (unsigned long long)block->runs);
            for (uint32_t k = 0; k < block->n; k++)
                fprintf(out, "%08x", block->code[k]);
            fputc('\n', out);
            block->runs = 0;
        }
}

static void on_mark(unsigned vcpu, void *data)
{
    char name[8];
    (void)vcpu;
    snprintf(name, sizeof name, "%u", (unsigned)(uintptr_t)data);
    write_phase(name);
}

/* A block may be translated more than once; it is counted in one place. */
static struct block *block_of(struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    uint32_t n = qemu_plugin_tb_n_insns(tb);
    struct block **bucket = &blocks[(address >> 2) % BUCKETS];
    struct block *fresh = calloc(1, sizeof *fresh + n * sizeof *fresh->code);

    if (!fresh) {
        fputs("counter: out of memory\n", stderr);
        exit(1);
    }
    for (uint32_t i = 0; i < n; i++)
        memcpy(&fresh->code[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), 4);
    for (struct block *block = *bucket; block; block = block->next)
        if (block->address == address && block->n == n && !memcmp(block->code, fresh->code, 4 * n)) {
            free(fresh);
            return block;
        }
    fresh->address = address;
    fresh->n = n;
    fresh->next = *bucket;
    *bucket = fresh;
    return fresh;
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    struct block *block = block_of(tb);

    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, OP_ADD, &block->runs, 1);
    for (uint32_t i = 0; i < block->n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        bool is_hint = (block->code[i] & 0xFFFFF01F) == 0xD503201F;
        unsigned number = block->code[i] >> 5 & 0x7F;

        if (is_hint && number >= 96 && number < 112)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, FLAGS_NONE, (void *)(uintptr_t)(number - 96));
    }
}

/* User mode maps guest memory one to one, so our own map of files is the program's. */
static void on_exit_(plugin_id id, void *data)
{
    char line[4096], path[4096];
    unsigned long long start, offset;
    FILE *maps = fopen("/proc/self/maps", "r");

    (void)id, (void)data;
    write_phase("end");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%llx-%*x %*s %llx %*s %*s %4095s", &start, &offset, path) == 3 && path[0] == '/')
            fprintf(out, "map %llx %llx %s\n", start, offset, path);
    if (maps)
        fclose(maps);
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
    const char *path = NULL;

    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4))
            path = argv[i] + 4;
        else
            return -1;
    }
    out = path ? fopen(path, "w") : NULL;
    if (!out)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
    return 0;
}
