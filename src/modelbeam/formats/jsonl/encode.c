/* Columns as JSON Lines, in one pass.
 *
 * A column is one of
 *   TOKENS  the text of a JSON array with one element a row, as orjson writes a NumPy array or a list
 *   TEXT32  strings, with 32-bit offsets into their bytes, as Arrow has them
 *   TEXT64  the same with 64-bit offsets
 *   LABELS  an index a row into texts that are JSON already
 * with a byte a row that says whether there is a value, or none if all rows have one. What is kept of
 * each record stands before its prediction. The caller has made sure that `out` has room.
 */

#include <stdint.h>
#include <string.h>

enum { TOKENS, TEXT32, TEXT64, LABELS };

typedef struct {
    int64_t kind;
    const char *name; /* with quotes and the colon, as JSON */
    int64_t name_length;
    const char *data;    /* of texts and labels, or the tokens after the first bracket */
    const void *offsets; /* rows + 1 of them, of texts; of labels, by label */
    const int32_t *indices;
    const uint8_t *valid;
} out_column;

static const char HEX[] = "0123456789abcdef";

/* For each byte 0 if it stands for itself in a string, else what follows the backslash. */
static const char ESCAPES[256] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    ['"'] = '"', ['\\'] = '\\',
};

static char *put(char *out, const char *text, int64_t length)
{
    memcpy(out, text, (size_t)length);
    return out + length;
}

static char *put_string(char *out, const unsigned char *text, int64_t length)
{
    *out++ = '"';
    int64_t from = 0;
    for (int64_t i = 0; i < length; i++) {
        char escape = ESCAPES[text[i]];
        if (!escape)
            continue;
        out = put(out, (const char *)text + from, i - from);
        from = i + 1;
        *out++ = '\\';
        *out++ = escape;
        if (escape == 'u') {
            *out++ = '0';
            *out++ = '0';
            *out++ = HEX[text[i] >> 4];
            *out++ = HEX[text[i] & 15];
        }
    }
    out = put(out, (const char *)text + from, length - from);
    *out++ = '"';
    return out;
}

/* The end of the element that begins here: a comma or a bracket of the outer array. */
static const char *token_end(const char *at)
{
    if (*at != '[' && *at != '{' && *at != '"') {
        while (*at != ',' && *at != ']')
            at++;
        return at;
    }
    int64_t depth = 0;
    for (;; at++) {
        if (*at == '"') {
            for (at++; *at != '"'; at++)
                if (*at == '\\')
                    at++;
            if (depth == 0)
                return at + 1;
        } else if (*at == '[' || *at == '{') {
            depth++;
        } else if (*at == ']' || *at == '}') {
            if (--depth == 0)
                return at + 1;
        }
    }
}

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The members of an object, without white space at its ends and without returns. */
static char *put_members(char *out, const char *text, const char *end)
{
    while (text < end && is_space(*text))
        text++;
    while (text < end && is_space(end[-1]))
        end--;
    if (end - text < 2)
        return out;
    text++;
    end--;
    while (text < end && is_space(end[-1]))
        end--;
    char *last = put(out, text, end - text);
    while (out < last && (out = memchr(out, '\r', (size_t)(last - out))))
        *out++ = ' '; /* outside of strings: in them it would be an escape */
    return last;
}

/* Write the rows and return how many bytes they are.
 *
 * `kept` holds the texts of JSON objects whose members stand before the predictions, each from its
 * place in `begins` to that in `ends`; or it is null.
 */
int64_t modelbeam_lines(out_column *columns, int64_t count, int64_t rows, const char *kept,
                        const int64_t *begins, const int64_t *ends, char *out)
{
    char *start = out;
    for (int64_t row = 0; row < rows; row++) {
        int first = 1;
        *out++ = '{';
        if (kept) {
            char *members = out;
            out = put_members(out, kept + begins[row], kept + ends[row]);
            first = out == members;
        }
        for (int64_t i = 0; i < count; i++) {
            out_column *column = columns + i;
            if (!first)
                *out++ = ',';
            first = 0;
            out = put(out, column->name, column->name_length);
            int here = !column->valid || column->valid[row];
            if (column->kind == TOKENS) {
                const char *end = token_end(column->data);
                if (here)
                    out = put(out, column->data, end - column->data);
                column->data = end + 1; /* after the comma */
            } else if (here && column->kind == TEXT32) {
                const int32_t *ends = column->offsets;
                out = put_string(out, (const unsigned char *)column->data + ends[row],
                                 ends[row + 1] - ends[row]);
            } else if (here && column->kind == TEXT64) {
                const int64_t *ends = column->offsets;
                out = put_string(out, (const unsigned char *)column->data + ends[row],
                                 ends[row + 1] - ends[row]);
            } else if (here) {
                const int64_t *ends = (const int64_t *)column->offsets + column->indices[row];
                out = put(out, column->data + ends[0], ends[1] - ends[0]);
            }
            if (!here)
                out = put(out, "null", 4);
        }
        *out++ = '}';
        *out++ = '\n';
    }
    return out - start;
}
