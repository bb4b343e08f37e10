/* pcmref's golden vectors in C: reads the JSON files of a request, computes five operations, writes the results.
 *
 *   pcmref golden write --json request --level 2
 *   cc -O2 golden_example.c -lm -o golden_example && ./golden_example request results.json
 *   pcmref golden verify results.json --level 2
 *
 * With -DREAL=float it computes in float32: verify with --dtype float32. It needs a C99 compiler, no library but libm. The upper
 * half reads JSON; the operations below are the equations of GOLDEN.md, and replacing them by yours is all there is to do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;

static void die(const char *what, const char *which)
{
    fprintf(stderr, "golden_example: %s: %s\n", which, what);
    exit(2);
}

static void *need(void *memory)
{
    if (memory == NULL)
        die("out of memory", "malloc");
    return memory;
}

/* ------------------------------------------------------------------------------------------------------------- JSON */

typedef struct Value {
    char kind;           /* '{', '[', '"', or '0' for numbers, true, false and null */
    char *name;          /* of an object's entry */
    char *text;          /* of a string or number */
    struct Value *items; /* of an object or a list */
    size_t count;
} Value;

static const char *file_name;

static void space(char **at)
{
    while (**at == ' ' || **at == '\n' || **at == '\t' || **at == '\r')
        ++*at;
}

static char *string(char **at) /* in place: the text gets shorter where something is escaped */
{
    char *start = ++*at, *to = start, *from = start;
    for (; *from != '"'; ++from) {
        if (*from == '\0')
            die("a text has no end", file_name);
        if (*from != '\\') {
            *to++ = *from;
            continue;
        }
        const char *known = "\"\\/bfnrt", *stands_for = "\"\\/\b\f\n\r\t", *found = strchr(known, *++from);
        if (*from == '\0' || found == NULL) /* \u does not occur: the files are UTF-8 */
            die("an escape that is not known", file_name);
        *to++ = stands_for[found - known];
    }
    *at = from + 1;
    *to = '\0'; /* at the closing quote, or before it */
    return start;
}

static Value value(char **at, int depth)
{
    Value v = {0};
    space(at);
    if (depth > 32)
        die("nested too deep", file_name);
    if (**at == '"') {
        v.kind = '"';
        v.text = string(at);
    } else if (**at == '{' || **at == '[') {
        char end = **at == '{' ? '}' : ']';
        v.kind = *(*at)++;
        for (space(at); **at != end; space(at)) {
            if (v.count > 0 && *(*at)++ != ',')
                die("a comma is missing", file_name);
            char *name = NULL;
            space(at);
            if (v.kind == '{') {
                if (**at != '"')
                    die("a name is missing", file_name);
                name = string(at);
                space(at);
                if (*(*at)++ != ':')
                    die("a colon is missing", file_name);
            }
            if ((v.count & (v.count - 1)) == 0) /* room for 1, 2, 4, ... */
                v.items = need(realloc(v.items, (v.count ? 2 * v.count : 1) * sizeof *v.items));
            Value item = value(at, depth + 1);
            item.name = name;
            v.items[v.count++] = item;
        }
        ++*at;
    } else {
        size_t length = strcspn(*at, ",]} \n\t\r");
        if (length == 0)
            die("a value is missing", file_name);
        v.kind = '0';
        v.text = need(calloc(length + 1, 1));
        memcpy(v.text, *at, length);
        *at += length;
    }
    return v;
}

static const Value *get(const Value *object, const char *name)
{
    for (size_t i = 0; i < object->count; ++i)
        if (object->items[i].name != NULL && strcmp(object->items[i].name, name) == 0)
            return &object->items[i];
    die("this entry is missing", name);
    return NULL;
}

static double number(const Value *v)
{
    char *end = v->text;
    double found = v->text == NULL ? 0 : strtod(v->text, &end); /* it reads 0x1.8p+1, nan and inf */
    if (v->text == NULL || *end != '\0' || end == v->text)
        die("no number", v->text == NULL ? file_name : v->text);
    return found;
}

static int whole(const Value *params, const char *name)
{
    return (int)number(get(params, name));
}

/* ----------------------------------------------------------------------------------------------------------- arrays */

typedef struct {
    int shape[8];
    size_t count;
    real *data;
} Array;

static Array array(const Value *inputs, const char *name)
{
    const Value *entry = get(inputs, name), *shape = get(entry, "shape"), *data = get(entry, "data");
    Array a = {{0}, data->count, need(malloc((data->count + 1) * sizeof(real)))};
    if (shape->count > 8)
        die("too many axes", name);
    for (size_t i = 0; i < shape->count; ++i)
        a.shape[i] = (int)number(&shape->items[i]);
    for (size_t i = 0; i < data->count; ++i)
        a.data[i] = (real)number(&data->items[i]);
    return a;
}

static real *result(size_t count)
{
    return need(calloc(count + 1, sizeof(real)));
}

/* ------------------------------------------------------------------------------------------------------- operations */

typedef struct {
    size_t count;
    real *data;
} Output;

static Output conv2d(const Value *inputs, const Value *params)
{
    Array x = array(inputs, "x"), w = array(inputs, "w");
    int stride = whole(params, "stride"), padding = whole(params, "padding");
    int N = x.shape[0], H = x.shape[1], W = x.shape[2], C = x.shape[3], O = w.shape[0], KH = w.shape[2], KW = w.shape[3];
    int P = (H + 2 * padding - KH) / stride + 1, Q = (W + 2 * padding - KW) / stride + 1;
    Output y = {(size_t)N * P * Q * O, result((size_t)N * P * Q * O)};
    real *to = y.data;
    for (int n = 0; n < N; ++n)
        for (int p = 0; p < P; ++p)
            for (int q = 0; q < Q; ++q)
                for (int o = 0; o < O; ++o, ++to)
                    for (int i = 0; i < KH; ++i)
                        for (int j = 0; j < KW; ++j) {
                            int r = p * stride + i - padding, s = q * stride + j - padding;
                            if (r < 0 || r >= H || s < 0 || s >= W)
                                continue; /* the border is 0 */
                            for (int c = 0; c < C; ++c)
                                *to += x.data[((n * H + r) * W + s) * C + c] * w.data[((o * C + c) * KH + i) * KW + j];
                        }
    return y;
}

static Output batch_norm(const Value *inputs, const Value *params)
{
    Array x = array(inputs, "x"), weight = array(inputs, "weight"), bias = array(inputs, "bias");
    Array mean = array(inputs, "mean"), var = array(inputs, "var");
    real eps = (real)number(get(params, "eps"));
    Output y = {x.count, result(x.count)};
    for (size_t i = 0; i < x.count; ++i) {
        size_t c = i % (size_t)x.shape[3];
        y.data[i] = weight.data[c] * (x.data[i] - mean.data[c]) / sqrt(var.data[c] + eps) + bias.data[c];
    }
    return y;
}

static Output relu(const Value *inputs, const Value *params)
{
    Array x = array(inputs, "x");
    Output y = {x.count, result(x.count)};
    (void)params;
    for (size_t i = 0; i < x.count; ++i)
        y.data[i] = x.data[i] < 0 ? 0 : x.data[i]; /* a NaN stays one */
    return y;
}

static Output linear(const Value *inputs, const Value *params)
{
    Array x = array(inputs, "x"), w = array(inputs, "w"), b = array(inputs, "b");
    int N = x.shape[0], C = x.shape[1], O = w.shape[0];
    Output y = {(size_t)N * O, result((size_t)N * O)};
    (void)params;
    for (int n = 0; n < N; ++n)
        for (int o = 0; o < O; ++o) {
            real sum = b.data[o];
            for (int c = 0; c < C; ++c)
                sum += x.data[n * C + c] * w.data[o * C + c];
            y.data[n * O + o] = sum;
        }
    return y;
}

static Output drift(const Value *inputs, const Value *params)
{
    Array g_prog_us = array(inputs, "g_prog_us"), nu = array(inputs, "nu");
    real t_s = (real)number(get(params, "t_s")), t_0_s = (real)number(get(get(params, "model"), "t_0_s"));
    Output g_drift_us = {nu.count, result(nu.count)};
    for (size_t i = 0; i < nu.count; ++i)
        g_drift_us.data[i] = g_prog_us.data[i] * pow(t_s / t_0_s, -nu.data[i]);
    return g_drift_us;
}

/* ------------------------------------------------------------------------------------------------------------- files */

static const struct {
    const char *name, *output;
    Output (*run)(const Value *inputs, const Value *params);
} OPERATIONS[] = {
    {"conv2d", "y", conv2d}, {"batch_norm", "y", batch_norm},   {"relu", "y", relu},
    {"linear", "y", linear}, {"drift", "g_drift_us", drift},
};

static char *content(const char *folder, const char *name) /* of folder/name.json, NULL where there is none */
{
    char *path = need(calloc(strlen(folder) + strlen(name) + 7, 1));
    sprintf(path, "%s/%s.json", folder, name);
    FILE *file = fopen(path, "rb");
    file_name = path;
    if (file == NULL)
        return NULL;
    size_t used = 0, size = 1 << 16, got;
    char *text = need(malloc(size + 1));
    while ((got = fread(text + used, 1, size - used, file)) > 0)
        if ((used += got) == size)
            text = need(realloc(text, (size *= 2) + 1));
    text[used] = '\0';
    fclose(file);
    return text;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: golden_example REQUEST RESULTS.json", "arguments");
    FILE *out = fopen(argv[2], "w");
    if (out == NULL)
        die("cannot be written", argv[2]);
    fprintf(out, "{\"schema\": \"pcmref-golden-results\", \"schema_version\": 1, \"backend\": \"golden_example.c\", \"results\": {");
    const char *comma = "";
    for (size_t o = 0; o < sizeof OPERATIONS / sizeof *OPERATIONS; ++o) {
        char *text = content(argv[1], OPERATIONS[o].name);
        if (text == NULL)
            continue;
        Value root = value(&text, 0);
        const Value *cases = get(&root, "cases");
        for (size_t i = 0; i < cases->count; ++i, comma = ",") {
            const Value *one = &cases->items[i];
            Output y = OPERATIONS[o].run(get(one, "inputs"), get(one, "params"));
            fprintf(out, "%s\n\"%s/%s\": [", comma, one->name, OPERATIONS[o].output);
            for (size_t k = 0; k < y.count; ++k)
                fprintf(out, "%s\"%a\"", k > 0 ? ", " : "", (double)y.data[k]);
            fprintf(out, "]");
        }
    }
    fprintf(out, "\n}}\n");
    if (ferror(out) | fclose(out))
        die("cannot be written", argv[2]);
    return 0; /* what was allocated goes with the process */
}
