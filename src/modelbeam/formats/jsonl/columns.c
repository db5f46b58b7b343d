/* JSON Lines straight into columns: one pass over a block of lines, no object a record.
 *
 * A line is taken only if it is certainly what a strict JSON parser (RFC 8259) would accept and each
 * wanted column is there once with a value of its kind. Every other line is called doubtful and
 * left to the caller, who has a slower parser to decide. So this file never reports an error.
 *
 * Columns may be nested. A column belongs to a domain: the lines, or the items of the innermost list
 * around it. All columns of a domain have a slot for each of its rows or items, also where an object
 * around them is null, as Arrow has it.
 *
 * Memory safety rests on one fact: data[length] is NUL (CPython's bytes are terminated), NUL is
 * valid nowhere in JSON, and each loop below moves on only over a byte that it has accepted.
 * Fixed-length comparisons and loads of several bytes check the distance to the end first.
 *
 * What is not wanted is skipped fast: strings 16 bytes at a time, and a member's name is compared
 * with the one that stood in its place in the line before, which it mostly is.
 *
 * Numbers become the nearest double: exactly for up to 19 digits by the method of D. Lemire,
 * "Number Parsing at a Gigabyte per Second" (2021), with a table of powers of five that the caller
 * computes; the rare rest by strtod.
 *
 * It needs no Python header: it is loaded with ctypes, which releases the interpreter lock.
 */
#define _GNU_SOURCE
#include <locale.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define DEEPEST 256            /* nesting of a value that is skipped; deeper is doubtful */
#define SMALLEST_POWER (-342)  /* of five, in the table */
#define LARGEST_POWER 308
#define CHUNK 16               /* bytes of a string that are looked at together */

enum kind { FLOAT = 0, INTEGER = 1, BOOLEAN = 2, STRING = 3, PLACE = 4, LIST = 5, STRUCT = 6 };

typedef struct column column;

typedef struct {
    const uint8_t *text; /* from the quote before the name to the value */
    int64_t length;
    column *column; /* NULL if it is not wanted */
} member;

struct column {
    const uint8_t *name;   /* as it stands in the data, without quotes */
    int64_t name_length;
    int64_t kind;
    int64_t nullable;      /* null is a value */
    int64_t required;      /* absence is not */
    int64_t bounded;       /* numbers outside of the bounds below are doubtful */
    double low, high;      /* of a FLOAT, inclusive */
    int64_t least, most;   /* of an INTEGER, inclusive */
    void *values;          /* double, int64_t or uint8_t a slot; of strings, lists int32_t offsets */
    uint8_t *valid;        /* a slot: 1 if there is a value; NULL if there always is */
    uint8_t *text;         /* of strings the bytes, one after another */
    int64_t length;        /* out: of strings bytes, of lists items; the present line's included */
    int64_t kept;          /* scratch: of the rows so far */
    int64_t seen;          /* scratch: the last object that has it, from 1 */
    int32_t *places;       /* a row: where in the data its text begins and ends; or NULL */
    int64_t stride;        /* from one row's place to the next one's, in int32_t */
    column *children;      /* of an object its members, of a list what its items are */
    int64_t child_count;
    int64_t closed;        /* an object with other members is doubtful */
    member *known;         /* scratch: of the objects before, by place; room for known_room */
    int64_t known_room;
    int64_t known_count;   /* scratch */
    column *next_long;     /* scratch: the next of the strings and lists */
};

typedef struct {
    const uint8_t *begin;
    const uint8_t *end;
    const uint64_t *powers; /* of five: high and low word of the 128-bit mantissa, pairwise */
    locale_t locale;        /* "C", whatever the process has set */
    int64_t objects;        /* begun so far */
} parser;

typedef struct {
    int negative, whole, truncated;
    uint64_t digits;
    int64_t exponent;  /* of ten */
} number;

static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

static inline const uint8_t *skip_space(const uint8_t *p) {
    while (*p == ' ' || *p == '\t' || *p == '\r') p++;
    return p;
}

/* Reads the digits of a number; NULL if it is not one by JSON's grammar. */
static const uint8_t *read_number(const uint8_t *p, number *out) {
    uint64_t digits = 0;
    int64_t exponent = 0;
    int count = 0; /* significant digits in `digits` */
    out->negative = *p == '-';
    out->truncated = 0;
    out->whole = 1;
    p += out->negative;
    if (*p == '0') {
        p++;
    } else if (is_digit(*p)) {
        for (; is_digit(*p); p++) {
            if (count < 19) {
                digits = digits * 10 + (uint64_t)(*p - '0');
                count++;
            } else {
                out->truncated = 1;
                exponent++;
            }
        }
    } else {
        return NULL;
    }
    if (*p == '.') {
        out->whole = 0;
        p++;
        if (!is_digit(*p)) return NULL;
        for (; is_digit(*p); p++) {
            if (count < 19) {
                digits = digits * 10 + (uint64_t)(*p - '0');
                count += digits != 0;
                exponent--;
            } else {
                out->truncated = 1;
            }
        }
    }
    if (*p == 'e' || *p == 'E') {
        int64_t given = 0;
        int minus;
        out->whole = 0;
        p++;
        minus = *p == '-';
        if (*p == '-' || *p == '+') p++;
        if (!is_digit(*p)) return NULL;
        for (; is_digit(*p); p++)
            if (given < 100000) given = given * 10 + (*p - '0');
        exponent += minus ? -given : given;
    }
    out->digits = digits;
    out->exponent = exponent;
    return p;
}

/* The double nearest to digits * 10^exponent; 0 if this method cannot tell. */
static int nearest_double(const uint64_t *powers, uint64_t digits, int64_t exponent, double *out) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (digits >> 53 == 0 && exponent >= -22 && exponent <= 22) {
        /* both factors are exact, so one rounding is all there is (Clinger 1990) */
        *out = exponent < 0 ? (double)digits / tens[-exponent] : (double)digits * tens[exponent];
        return 1;
    }
    if (digits == 0) {
        *out = 0.0;
        return 1;
    }
    if (exponent < SMALLEST_POWER || exponent > LARGEST_POWER) return 0;
    {
        int shift = __builtin_clzll(digits);
        uint64_t normal = digits << shift;
        const uint64_t *power = powers + 2 * (exponent - SMALLEST_POWER);
        unsigned __int128 product = (unsigned __int128)normal * power[0];
        uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
        uint64_t mantissa, bits;
        int64_t binary;
        int upper;
        if ((high & 0x1FF) == 0x1FF) { /* the low word of the power may carry into the result */
            unsigned __int128 more = (unsigned __int128)normal * power[1];
            uint64_t carry = (uint64_t)(more >> 64);
            low += carry;
            if (low < carry) high++;
        }
        if (low == UINT64_MAX && (exponent < -27 || exponent > 55)) return 0;
        upper = (int)(high >> 63);
        mantissa = high >> (upper + 9);
        binary = (((152170 + 65536) * exponent) >> 16) + 63 + upper - shift + 1023;
        if (binary <= 0 || binary >= 0x7FF) return 0; /* subnormal, zero or infinite */
        if (low <= 1 && exponent >= -4 && exponent <= 23 && (mantissa & 3) == 1 &&
            mantissa << (upper + 9) == high)
            mantissa &= ~(uint64_t)1; /* exactly between two doubles: to the even one */
        mantissa += mantissa & 1;
        mantissa >>= 1;
        if (mantissa >> 53) {
            mantissa >>= 1;
            binary++;
            if (binary >= 0x7FF) return 0;
        }
        bits = (mantissa & ~((uint64_t)1 << 52)) | (uint64_t)binary << 52;
        memcpy(out, &bits, sizeof bits);
        return 1;
    }
}

static const uint8_t *parse_float(const parser *self, const uint8_t *p, double *out) {
    number n;
    const uint8_t *after = read_number(p, &n);
    if (after == NULL) return NULL;
    if (n.whole && n.digits == 0) n.negative = 0; /* the integer -0 is 0 */
    if (n.truncated || !nearest_double(self->powers, n.digits, n.exponent, out)) {
        double value = strtod_l((const char *)p, NULL, self->locale);
        if (value > 1.7976931348623157e308 || value < -1.7976931348623157e308) return NULL;
        *out = value;
        return after;
    }
    if (n.negative) *out = -*out;
    return after;
}

static const uint8_t *parse_integer(const uint8_t *p, int64_t *out) {
    number n;
    const uint8_t *after = read_number(p, &n);
    if (after == NULL || !n.whole || n.truncated) return NULL;
    if (n.digits > (uint64_t)INT64_MAX + (uint64_t)n.negative) return NULL;
    *out = n.negative ? (int64_t)(0 - n.digits) : (int64_t)n.digits;
    return after;
}

static inline const uint8_t *literal(const parser *self, const uint8_t *p, const char *word,
                                     int64_t length) {
    return self->end - p >= length && memcmp(p, word, (size_t)length) == 0 ? p + length : NULL;
}

/* How many bytes, of the next CHUNK, come before the first that may end a plain run of a string. */
static inline int plain_run(const uint8_t *p) {
#if defined(__SSE2__)
    __m128i c = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i special = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(c, _mm_set1_epi8('"')),
                                                _mm_cmpeq_epi8(c, _mm_set1_epi8('\\'))),
                                   _mm_cmpeq_epi8(_mm_min_epu8(c, _mm_set1_epi8(0x1F)), c));
    unsigned mask = (unsigned)_mm_movemask_epi8(special);
    return mask ? __builtin_ctz(mask) : CHUNK;
#elif defined(__aarch64__)
    uint8x16_t c = vld1q_u8(p);
    uint8x16_t special = vorrq_u8(vorrq_u8(vceqq_u8(c, vdupq_n_u8('"')), vceqq_u8(c, vdupq_n_u8('\\'))),
                                  vcltq_u8(c, vdupq_n_u8(0x20)));
    uint8x8_t nibbles = vshrn_n_u16(vreinterpretq_u16_u8(special), 4);
    uint64_t mask = vget_lane_u64(vreinterpret_u64_u8(nibbles), 0);
    return mask ? __builtin_ctzll(mask) >> 2 : CHUNK;
#else
    int i = 0;
    while (i < CHUNK && p[i] != '"' && p[i] != '\\' && p[i] >= 0x20) i++;
    return i;
#endif
}

/* The value of four hexadecimal digits, or -1. Each is looked at only after the one before it. */
static inline int hexadecimal(const uint8_t *p) {
    int value = 0, i;
    for (i = 0; i < 4; i++) {
        uint8_t c = p[i], letter = (uint8_t)((c | 32) - 'a');
        if (!is_digit(c) && letter >= 6) return -1;
        value = value << 4 | (is_digit(c) ? c - '0' : letter + 10);
    }
    return value;
}

/* From after the opening quote to after the closing one. With `plain`, an escape is doubtful. */
static const uint8_t *skip_string(const parser *self, const uint8_t *p, int plain) {
    for (;; p++) {
        while (self->end - p >= CHUNK) {
            int run = plain_run(p);
            p += run;
            if (run < CHUNK) break;
        }
        if (*p == '"') return p + 1;
        if (*p < 0x20) return NULL;
        if (*p != '\\') continue;
        if (plain) return NULL;
        p++;
        if (*p == 'u') {
            int unit = hexadecimal(p + 1);
            if (unit < 0) return NULL;
            p += 4;
            if (unit < 0xD800 || unit > 0xDFFF) continue;
            if (unit > 0xDBFF || p[1] != '\\' || p[2] != 'u') return NULL; /* half a character */
            unit = hexadecimal(p + 3);
            if (unit < 0xDC00 || unit > 0xDFFF) return NULL;
            p += 6;
        } else if (*p == 0 || strchr("\"\\/bfnrt", *p) == NULL) {
            return NULL;
        }
    }
}

/* Skips a number; one that may be too large for a double is doubtful. */
static const uint8_t *skip_number(const uint8_t *p) {
    const uint8_t *first = p;
    number n;
    p += *p == '-';
    if (*p == '0') {
        p++;
    } else {
        if (!is_digit(*p)) return NULL;
        while (is_digit(*p)) p++;
    }
    if (*p == '.') {
        p++;
        if (!is_digit(*p)) return NULL;
        while (is_digit(*p)) p++;
    }
    if ((*p | 32) != 'e' && p - first < 200) return p;
    p = read_number(first, &n);
    if (p != NULL && (n.exponent > 280 || n.exponent < -280)) return NULL;
    return p;
}

/* Skips a value of a column that is not wanted. */
static const uint8_t *skip_value(const parser *self, const uint8_t *p, int depth) {
    if (depth > DEEPEST) return NULL;
    switch (*p) {
    case '"':
        return skip_string(self, p + 1, 0);
    case 't':
        return literal(self, p, "true", 4);
    case 'f':
        return literal(self, p, "false", 5);
    case 'n':
        return literal(self, p, "null", 4);
    case '[':
        p = skip_space(p + 1);
        if (*p == ']') return p + 1;
        for (;;) {
            p = skip_value(self, p, depth + 1);
            if (p == NULL) return NULL;
            p = skip_space(p);
            if (*p == ']') return p + 1;
            if (*p != ',') return NULL;
            p = skip_space(p + 1);
        }
    case '{':
        p = skip_space(p + 1);
        if (*p == '}') return p + 1;
        for (;;) {
            if (*p != '"' || (p = skip_string(self, p + 1, 0)) == NULL) return NULL;
            p = skip_space(p);
            if (*p != ':') return NULL;
            p = skip_value(self, skip_space(p + 1), depth + 1);
            if (p == NULL) return NULL;
            p = skip_space(p);
            if (*p == '}') return p + 1;
            if (*p != ',') return NULL;
            p = skip_space(p + 1);
        }
    default:
        return skip_number(p);
    }
}

static inline int is_long(const column *c) { return c->kind == STRING || c->kind == LIST; }

/* Copies text[0, length), the inside of a string that skip_string has accepted, without escapes. */
static int64_t unescape(const uint8_t *text, int64_t length, uint8_t *out) {
    const uint8_t *first = out, *end = text + length;
    while (text < end) {
        const uint8_t *escape = memchr(text, '\\', (size_t)(end - text));
        int64_t plain = (escape == NULL ? end : escape) - text;
        uint32_t c;
        memcpy(out, text, (size_t)plain);
        out += plain;
        if (escape == NULL) break;
        text = escape + 2;
        switch (escape[1]) {
        case 'b': *out++ = '\b'; continue;
        case 'f': *out++ = '\f'; continue;
        case 'n': *out++ = '\n'; continue;
        case 'r': *out++ = '\r'; continue;
        case 't': *out++ = '\t'; continue;
        case 'u': break;
        default: *out++ = escape[1]; continue;
        }
        c = (uint32_t)hexadecimal(text);
        text += 4;
        if (c >= 0xD800 && c <= 0xDFFF) {
            c = 0x10000 + ((c - 0xD800) << 10) + ((uint32_t)hexadecimal(text + 2) - 0xDC00);
            text += 6;
        }
        if (c < 0x80) {
            *out++ = (uint8_t)c;
        } else if (c < 0x800) {
            *out++ = (uint8_t)(0xC0 | c >> 6);
            *out++ = (uint8_t)(0x80 | (c & 0x3F));
        } else {
            if (c < 0x10000) {
                *out++ = (uint8_t)(0xE0 | c >> 12);
            } else {
                *out++ = (uint8_t)(0xF0 | c >> 18);
                *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));
            }
            *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
            *out++ = (uint8_t)(0x80 | (c & 0x3F));
        }
    }
    return out - first;
}

/* What stands in a slot that is of no account, here and further in. */
static void put_nothing(column *c, int64_t slot) {
    int64_t i;
    switch (c->kind) {
    case FLOAT:
    case INTEGER:
        ((int64_t *)c->values)[slot] = 0;
        break;
    case BOOLEAN:
        ((uint8_t *)c->values)[slot] = 0;
        break;
    case STRING:
    case LIST:
        ((int32_t *)c->values)[slot] = (int32_t)c->length;
        break;
    case STRUCT:
        for (i = 0; i < c->child_count; i++) {
            if (c->children[i].valid != NULL) c->children[i].valid[slot] = 1; /* as Arrow has it */
            put_nothing(c->children + i, slot);
        }
        break;
    default:
        break;
    }
}

static const uint8_t *parse_value(parser *self, column *c, const uint8_t *p, int64_t slot);
static const uint8_t *parse_object(parser *self, column *c, const uint8_t *p, int64_t slot);

/* There is room: before each item stands a bracket or a comma of its own. */
static const uint8_t *parse_list(parser *self, column *c, const uint8_t *p) {
    column *item = c->children;
    int plain = item->kind == FLOAT && item->valid == NULL && !item->bounded;
    p = skip_space(p + 1);
    if (*p == ']') return p + 1;
    for (;;) {
        p = plain ? parse_float(self, p, (double *)item->values + c->length)
                  : parse_value(self, item, p, c->length);
        if (p == NULL) return NULL;
        c->length++;
        p = skip_space(p);
        if (*p == ']') return p + 1;
        if (*p != ',') return NULL;
        p = skip_space(p + 1);
    }
}

static const uint8_t *parse_value(parser *self, column *c, const uint8_t *p, int64_t slot) {
    if (c->kind == PLACE) return skip_value(self, p, 1);
    if (*p == 'n') {
        if (!c->nullable) return NULL;
        c->valid[slot] = 0;
        put_nothing(c, slot);
        return literal(self, p, "null", 4);
    }
    if (c->valid != NULL) c->valid[slot] = 1;
    switch (c->kind) {
    case FLOAT: {
        double *value = (double *)c->values + slot;
        p = parse_float(self, p, value);
        if (p != NULL && c->bounded && !(*value >= c->low && *value <= c->high)) return NULL;
        return p;
    }
    case INTEGER: {
        int64_t *value = (int64_t *)c->values + slot;
        p = parse_integer(p, value);
        if (p != NULL && c->bounded && !(*value >= c->least && *value <= c->most)) return NULL;
        return p;
    }
    case BOOLEAN:
        ((uint8_t *)c->values)[slot] = *p == 't';
        return *p == 't' ? literal(self, p, "true", 4) : literal(self, p, "false", 5);
    case LIST:
        ((int32_t *)c->values)[slot] = (int32_t)c->length;
        return *p == '[' ? parse_list(self, c, p) : NULL;
    case STRUCT:
        return *p == '{' ? parse_object(self, c, p, slot) : NULL;
    default: {
        const uint8_t *after;
        ((int32_t *)c->values)[slot] = (int32_t)c->length;
        if (*p != '"') return NULL;
        after = skip_string(self, ++p, 0);
        if (after == NULL) return NULL;
        c->length += unescape(p, after - p - 1, c->text + c->length);
        return after;
    }
    }
}

static inline int is_key(const parser *self, const column *c, const uint8_t *p) {
    int64_t length = c->name_length;
    return self->end - p > length + 1 && p[length + 1] == '"' && *p == '"' &&
           memcmp(p + 1, c->name, (size_t)length) == 0;
}

static inline uint64_t load8(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline int is_member(const parser *self, const member *m, const uint8_t *p) {
    int64_t length = m->length, i;
    if (self->end - p < length) return 0;
    if (length < 8) return memcmp(p, m->text, (size_t)length) == 0;
    for (i = 0; i < length - 8; i += 8)
        if (load8(p + i) != load8(m->text + i)) return 0;
    return load8(p + length - 8) == load8(m->text + length - 8);
}

/* From the quote before a member's name to its value; NULL if it is doubtful. */
static const uint8_t *read_name(const parser *self, column *object, const uint8_t *p, int64_t at,
                                column **out) {
    const uint8_t *first = p;
    column *c = NULL;
    int64_t i;
    if (at < object->known_count && is_member(self, object->known + at, p)) {
        *out = object->known[at].column;
        return p + object->known[at].length;
    }
    for (i = 0; i < object->child_count && c == NULL; i++)
        if (is_key(self, object->children + i, p)) c = object->children + i;
    if (c != NULL)
        p += c->name_length + 2;
    else if (*p != '"' || (p = skip_string(self, p + 1, 1)) == NULL)
        return NULL;
    p = skip_space(p);
    if (*p != ':') return NULL;
    p = skip_space(p + 1);
    if (at < object->known_room) {
        object->known[at].text = first;
        object->known[at].length = p - first;
        object->known[at].column = c;
        if (at == object->known_count) object->known_count++;
    }
    *out = c;
    return p;
}

/* An object from its '{' to after its end, or NULL if it is doubtful. */
static const uint8_t *parse_object(parser *self, column *object, const uint8_t *p, int64_t slot) {
    int64_t at = 0, i, found = 0, serial = ++self->objects;
    p = skip_space(p + 1);
    if (*p == '}') {
        p++;
    } else {
        for (;; at++) {
            column *c = NULL;
            p = read_name(self, object, p, at, &c);
            if (p == NULL) return NULL;
            p = skip_space(p);
            if (c == NULL) {
                if (object->closed) return NULL;
                p = skip_value(self, p, 1);
                if (p == NULL) return NULL;
            } else {
                const uint8_t *first = p;
                if (c->seen == serial) return NULL; /* a second time */
                c->seen = serial;
                found++;
                p = parse_value(self, c, p, slot);
                if (p == NULL) return NULL;
                if (c->places != NULL) {
                    c->places[slot * c->stride] = (int32_t)(first - self->begin);
                    c->places[slot * c->stride + 1] = (int32_t)(p - self->begin);
                }
            }
            p = skip_space(p);
            if (*p == '}') {
                p++;
                break;
            }
            if (*p != ',') return NULL;
            p = skip_space(p + 1);
        }
    }
    for (i = 0; found < object->child_count; i++) {
        column *c = object->children + i;
        if (c->seen == serial) continue;
        if (c->required) return NULL;
        found++;
        if (c->places != NULL) c->places[slot * c->stride] = c->places[slot * c->stride + 1] = -1;
        if (c->kind == PLACE) continue;
        c->valid[slot] = 0;
        put_nothing(c, slot);
    }
    return p;
}

/* What modelbeam_columns takes as `locale`; made once, never freed. */
void *modelbeam_locale(void) { return (void *)newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* Decodes the lines of data[0, length), where data[length] is NUL.
 *
 * columns: what is wanted: first an object whose members are those of a line, then, of each column,
 *     its children together. Arrays of the lines' columns have room for a slot a line, those of items
 *     for a slot each comma and opening bracket of the data, both for one more; `text` has `length`
 *     bytes. What may be null or absent has `valid`.
 * row_lines: out, the line of each row. doubtful: out, the lines left to the caller.
 * totals: out, {rows, doubtful lines, lines, blank lines}.
 */
void modelbeam_columns(const uint8_t *data, int64_t length, column *columns, int64_t column_count,
                       const uint64_t *powers, void *locale, int32_t *row_lines,
                       int32_t *doubtful, int64_t *totals) {
    parser self;
    const uint8_t *p = data;
    column *longs = NULL, *c;
    int64_t rows = 0, doubts = 0, line = 0, blanks = 0, i;
    self.begin = data;
    self.end = data + length;
    self.powers = powers;
    self.locale = (locale_t)locale;
    self.objects = 0;
    for (i = 0; i < column_count; i++) {
        if (!is_long(columns + i)) continue;
        columns[i].next_long = longs;
        longs = columns + i;
    }
    for (; p < self.end; line++) {
        const uint8_t *begin = p, *after = NULL;
        p = skip_space(p);
        if (*p == '\n' || p == self.end) {
            blanks++;
            p++;
            continue;
        }
        if (*p == '{') {
            after = parse_object(&self, columns, p, rows);
            if (after != NULL) {
                after = skip_space(after);
                if (*after != '\n' && after != self.end) after = NULL;
            }
        }
        if (after != NULL) {
            for (c = longs; c != NULL; c = c->next_long) c->kept = c->length;
            row_lines[rows++] = (int32_t)line;
            p = after + 1;
            continue;
        }
        for (c = longs; c != NULL; c = c->next_long) c->length = c->kept;
        doubtful[doubts++] = (int32_t)line;
        p = memchr(begin, '\n', (size_t)(self.end - begin));
        if (p == NULL) {
            line++;
            break;
        }
        p++;
    }
    totals[0] = rows;
    totals[1] = doubts;
    totals[2] = line;
    totals[3] = blanks;
}

/* Where each of so many lines ends: at its newline, or at the end of the data. */
void modelbeam_line_ends(const uint8_t *data, int64_t length, int64_t count, int64_t *ends) {
    const uint8_t *p = data, *end = data + length;
    int64_t line;
    for (line = 0; line < count; line++) {
        const uint8_t *newline = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
        if (newline == NULL) newline = end;
        ends[line] = newline - data;
        p = newline + 1;
    }
}

/* Puts together what is kept of each row, `{"a":1,"b":"x"}`, from the places of the values.
 *
 * places: (rows, names, 2): where in the data a value begins and ends; -1 if the row has none.
 * heads: for each name what stands before its value, `"a":`, one after another; head_ends: where
 *     each of them ends.
 * text: out, with room for all of it. offsets: out, rows + 1 of them.
 */
void modelbeam_cut(const uint8_t *data, const int32_t *places, int64_t rows, int64_t names,
                   const uint8_t *heads, const int32_t *head_ends, uint8_t *text,
                   int64_t *offsets) {
    uint8_t *out = text;
    int64_t row, name;
    for (row = 0; row < rows; row++) {
        offsets[row] = out - text;
        *out++ = '{';
        for (name = 0; name < names; name++, places += 2) {
            int32_t head = name ? head_ends[name - 1] : 0, i;
            if (places[0] < 0) continue;
            if (out - text > offsets[row] + 1) *out++ = ',';
            memcpy(out, heads + head, (size_t)(head_ends[name] - head));
            out += head_ends[name] - head;
            for (i = places[0]; i < places[1]; i++) /* in a value a return is white space */
                *out++ = data[i] == '\r' ? ' ' : data[i];
        }
        *out++ = '}';
    }
    offsets[rows] = out - text;
}
