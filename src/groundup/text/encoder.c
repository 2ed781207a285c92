/* Byte-level BPE on several threads: Qwen2's pattern splits a text, and every pre-token is merged,
 * lowest rank first. Most pre-tokens have occurred before, and are copied from a cache.
 *
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)            1  a contraction
 *   [^\r\n\p{L}\p{N}]?\p{L}+                2  letters, after at most one sign or blank
 *   \p{N}                                   3  one digit
 *    ?[^\s\p{L}\p{N}]+[\r\n]*               4  signs, with one space before and line ends after
 *   \s*[\r\n]+                              5  blanks up to the last line end among them
 *   \s+(?!\S)                               6  blanks except the last, if a word follows
 *   \s+                                     7  blanks
 *
 * The first alternative that matches is taken, as in a regular expression. A table of code points
 * says which are letters, numbers and blanks; a point may be unknown. Texts with unknown points, or
 * with a pre-token of more than LONGEST bytes, are left to the caller.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>

enum { OTHER, LETTER, NUMBER, BLANK, LINE_END, UNKNOWN };
enum { LONGEST = 512, KEPT_BYTES = 20, KEPT_IDS = 8, SLOTS = 1 << 15 };

/* A cached pre-token. */
typedef struct {
    uint8_t bytes, ids;
    char text[KEPT_BYTES];
    int32_t id[KEPT_IDS];
} Known;

/* The merges: an open-addressing table of pairs of ids, each with its rank and merged id. */
typedef struct {
    const uint64_t *pairs;
    const int32_t *ranks, *joined;
    int64_t mask;
    const int32_t *of_byte;
} Merges;

/* One character: its class, and where the next one begins. */
static inline int class_at(const uint8_t *text, int64_t at, int64_t end, const uint8_t *classes,
                           int64_t *next) {
    if (at >= end) return -1;
    uint32_t c = text[at];
    if (c < 0x80) {
        *next = at + 1;
    } else if (c < 0xE0) {
        c = (c & 0x1F) << 6 | (text[at + 1] & 0x3F);
        *next = at + 2;
    } else if (c < 0xF0) {
        c = (c & 0x0F) << 12 | (text[at + 1] & 0x3F) << 6 | (text[at + 2] & 0x3F);
        *next = at + 3;
    } else {
        c = (c & 0x07) << 18 | (text[at + 1] & 0x3F) << 12 | (text[at + 2] & 0x3F) << 6 |
            (text[at + 3] & 0x3F);
        *next = at + 4;
    }
    return classes[c];
}

static int contraction(const uint8_t *text, int64_t at, int64_t end) {
    if (text[at] != '\'' || at + 1 >= end) return 0;
    int a = text[at + 1] | 0x20, b = at + 2 < end ? text[at + 2] : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (text[at + 1] == 0xC5 && b == 0xBF) return 3; /* the long s is an s too */
    b |= 0x20;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

/* Where the pre-token that begins at `at` ends; -1 at an unknown character. */
static int64_t pre_token(const uint8_t *text, int64_t at, int64_t end, const uint8_t *classes) {
    int length = contraction(text, at, end);
    if (length) return at + length;
    int64_t next, after, last;
    int kind = class_at(text, at, end, classes, &next);
    if (kind == UNKNOWN) return -1;
    if (kind == NUMBER) return next;

    int64_t from = kind == LETTER ? at : next; /* 2 */
    if (kind == LETTER || (kind != LINE_END &&
                           class_at(text, next, end, classes, &after) == LETTER)) {
        while ((kind = class_at(text, from, end, classes, &after)) == LETTER) from = after;
        return kind == UNKNOWN ? -1 : from;
    }

    int64_t signs = text[at] == ' ' ? at + 1 : at; /* 4 */
    if (class_at(text, signs, end, classes, &after) == OTHER) {
        while ((kind = class_at(text, signs, end, classes, &after)) == OTHER) signs = after;
        while (kind == LINE_END) {
            signs = after;
            kind = class_at(text, signs, end, classes, &after);
        }
        return kind == UNKNOWN ? -1 : signs;
    }

    int64_t line = 0; /* 5, 6, 7 */
    last = from = at;
    while ((kind = class_at(text, from, end, classes, &after)) == BLANK || kind == LINE_END) {
        last = from;
        from = after;
        if (kind == LINE_END) line = after;
    }
    if (kind == UNKNOWN) return -1;
    if (line) return line;
    return kind >= 0 && last > at ? last : from;
}

static inline uint64_t mixed(uint64_t x) {
    x ^= x >> 32;
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static inline int64_t merge_of(const Merges *m, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (int64_t slot = mixed(pair) & m->mask;; slot = (slot + 1) & m->mask) {
        if (m->pairs[slot] == pair) return slot;
        if (m->pairs[slot] == UINT64_MAX) return -1;
    }
}

/* Repeatedly apply the earliest learned merge; return the number of remaining ids. */
static int merged(const Merges *m, const uint8_t *bytes, int n, int32_t *ids) {
    int64_t slots[LONGEST];
    for (int i = 0; i < n; i++) ids[i] = m->of_byte[bytes[i]];
    for (int i = 0; i + 1 < n; i++) slots[i] = merge_of(m, ids[i], ids[i + 1]);
    while (n > 1) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++)
            if (slots[i] >= 0 && (best < 0 || m->ranks[slots[i]] < m->ranks[slots[best]])) best = i;
        if (best < 0) break;
        ids[best] = m->joined[slots[best]];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(slots + best, slots + best + 1, (n - best) * sizeof *slots);
        if (best + 1 < n) slots[best] = merge_of(m, ids[best], ids[best + 1]);
        if (best > 0) slots[best - 1] = merge_of(m, ids[best - 1], ids[best]);
    }
    return n;
}

static int64_t encoded(const Merges *m, const uint8_t *text, int64_t bytes, const uint8_t *classes,
                       Known *known, int32_t *ids) {
    int64_t count = 0;
    for (int64_t at = 0, end; at < bytes; at = end) {
        end = pre_token(text, at, bytes, classes);
        int64_t n = end - at;
        if (end < 0 || n > LONGEST) return -1;
        if (n > KEPT_BYTES) {
            count += merged(m, text + at, (int)n, ids + count);
            continue;
        }
        uint64_t hash = n;
        for (int64_t i = 0; i < n; i++) hash = (hash ^ text[at + i]) * 0x100000001B3u;
        Known *slot = known + (mixed(hash) & (SLOTS - 1));
        if (slot->bytes != n || memcmp(slot->text, text + at, n)) {
            int now = merged(m, text + at, (int)n, ids + count);
            if (now <= KEPT_IDS) {
                slot->bytes = (uint8_t)n;
                slot->ids = (uint8_t)now;
                memcpy(slot->text, text + at, n);
                memcpy(slot->id, ids + count, now * sizeof *ids);
            }
            count += now;
            continue;
        }
        memcpy(ids + count, slot->id, slot->ids * sizeof *ids);
        count += slot->ids;
    }
    return count;
}

/* Encode concatenated texts. Text i is text[ends[i - 1]:ends[i]], its ids begin at
 * ids[ends[i - 1]], and counts[i] is their number, or -1 if it is left to the caller. */
void encode(const uint8_t *text, const int64_t *ends, int64_t texts, const uint8_t *classes,
            const uint64_t *pairs, const int32_t *ranks, const int32_t *joined, int64_t mask,
            const int32_t *of_byte, void *memory, int32_t *ids, int64_t *counts, int threads) {
    Merges merges = {pairs, ranks, joined, mask, of_byte};
#pragma omp parallel num_threads(threads)
    {
        Known *known = (Known *)memory + (int64_t)omp_get_thread_num() * SLOTS;
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < texts; i++) {
            int64_t from = i ? ends[i - 1] : 0;
            counts[i] = encoded(&merges, text + from, ends[i] - from, classes, known, ids + from);
        }
    }
}

/* The ends of the next pre-tokens of a text, at most `most`; returns their number, which is smaller
 * at the end of the text or before an unknown character. */
int64_t split(const uint8_t *text, int64_t at, int64_t bytes, const uint8_t *classes, int64_t *ends,
              int64_t most) {
    int64_t count = 0;
    while (at < bytes && count < most && (at = pre_token(text, at, bytes, classes)) >= 0)
        ends[count++] = at;
    return count;
}

int64_t memory_per_thread(void) { return (int64_t)sizeof(Known) * SLOTS; }
