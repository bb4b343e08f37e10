// pcmref's golden vectors in JavaScript: reads the JSON files of a request, computes five operations, writes the results.
//
//   pcmref golden write --json request --level 2
//   node golden_example.mjs request results.json
//   pcmref golden verify results.json --level 2
//
// It needs Node and no package. Replacing the operations by yours is all there is to do; their equations are in GOLDEN.md.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

// ------------------------------------------------------------------------------------------------------------ numbers

const SPECIAL = { nan: NaN, inf: Infinity, "-inf": -Infinity };

/** "0x1.8p+1" as C writes it with %a, "nan", "inf", "-inf": the same number, exactly. */
function float(text) {
  if (text in SPECIAL) return SPECIAL[text];
  const [, sign, lead, digits = "", exponent] = /^(-?)0x([01])(?:\.([0-9a-f]+))?p([+-]\d+)$/.exec(text);
  const size = parseInt(lead + digits, 16) * 2 ** (Number(exponent) - 4 * digits.length);
  return sign ? -size : size;
}

/** A number as the results may have it: JSON has no NaN, no infinity, and JSON.stringify drops the sign of -0. */
function written(v) {
  if (Object.is(v, -0)) return "-0x0p+0";
  return Number.isFinite(v) ? v : Number.isNaN(v) ? "nan" : v > 0 ? "inf" : "-inf";
}

const array = ({ shape, data }) => ({ shape, data: data.map((v) => (typeof v === "string" ? float(v) : v)) });

// --------------------------------------------------------------------------------------------------------- operations

const OPERATIONS = {
  conv2d({ x, w }, { stride, padding }) {
    const [N, H, W, C] = x.shape;
    const [O, , KH, KW] = w.shape;
    const P = Math.floor((H + 2 * padding - KH) / stride) + 1;
    const Q = Math.floor((W + 2 * padding - KW) / stride) + 1;
    const y = [];
    for (let n = 0; n < N; n++)
      for (let p = 0; p < P; p++)
        for (let q = 0; q < Q; q++)
          for (let o = 0; o < O; o++) {
            let sum = 0;
            for (let i = 0; i < KH; i++)
              for (let j = 0; j < KW; j++) {
                const r = p * stride + i - padding;
                const s = q * stride + j - padding;
                if (r < 0 || r >= H || s < 0 || s >= W) continue; // the border is 0
                for (let c = 0; c < C; c++)
                  sum += x.data[((n * H + r) * W + s) * C + c] * w.data[((o * C + c) * KH + i) * KW + j];
              }
            y.push(sum);
          }
    return { y };
  },

  batch_norm({ x, weight, bias, mean, var: variance }, { eps }) {
    const C = x.shape[3];
    const y = x.data.map((v, i) => {
      const c = i % C;
      return (weight.data[c] * (v - mean.data[c])) / Math.sqrt(variance.data[c] + eps) + bias.data[c];
    });
    return { y };
  },

  relu: ({ x }) => ({ y: x.data.map((v) => (v < 0 ? 0 : v)) }), // a NaN stays one

  linear({ x, w, b }) {
    const [N, C] = x.shape;
    const y = [];
    for (let n = 0; n < N; n++)
      b.data.forEach((bias, o) => {
        let sum = bias;
        for (let c = 0; c < C; c++) sum += x.data[n * C + c] * w.data[o * C + c];
        y.push(sum);
      });
    return { y };
  },

  drift({ g_prog_us, nu }, { model, t_s }) {
    return { g_drift_us: g_prog_us.data.map((g, i) => g * (t_s / model.t_0_s) ** -nu.data[i]) };
  },
};

// -------------------------------------------------------------------------------------------------------------- files

const [request, target] = process.argv.slice(2);
const results = {};
for (const [name, operation] of Object.entries(OPERATIONS)) {
  const path = join(request, `${name}.json`);
  if (!existsSync(path)) continue;
  for (const [key, { inputs, params }] of Object.entries(JSON.parse(readFileSync(path, "utf8")).cases)) {
    const arrays = Object.fromEntries(Object.entries(inputs).map(([k, entry]) => [k, array(entry)]));
    for (const [output, data] of Object.entries(operation(arrays, params))) results[`${key}/${output}`] = data.map(written);
  }
}
const head = { schema: "pcmref-golden-results", schema_version: 1, backend: "golden_example.mjs" };
writeFileSync(target, JSON.stringify({ ...head, results }));
