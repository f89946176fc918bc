import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { openFolder } from "./folder.ts";
import { parseJson, readJson, readJsonObject } from "./json.ts";
import { PythonFloat, parseStrictJson } from "./jsonParser.ts";
import { stringifyPythonJson } from "./pythonJson.ts";

const folder = (text: string) => openFolder(new Map([["config.json", new TextEncoder().encode(text)]]));

describe("parseJson", () => {
  test("reads what JSON.parse reads, however it is spaced", () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(3), (text, indent) => {
        const parsed: unknown = JSON.parse(text);
        expect(parseStrictJson(JSON.stringify(parsed, null, indent))).toEqual(parsed);
      }),
    );
  });

  test("refuses what JSON.parse refuses", () => {
    const token = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"a"',
      '"',
      "\\",
      "-",
      "0",
      "01",
      "1.",
      ".5",
      "1e",
      "true",
      "nul",
      " ",
      "\n",
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 8 }), (tokens) => {
        const text = tokens.join("");
        const accepts = (parse: (text: string) => unknown): boolean => {
          try {
            parse(text);
            return true;
          } catch {
            return false;
          }
        };
        const duplicate = /"a"\s*:[^]*"a"\s*:/.test(text);
        if (!duplicate) expect(accepts(parseStrictJson)).toBe(accepts(JSON.parse));
      }),
      { numRuns: 3000 },
    );
  });

  test.each([
    ['{"a": 1,\n "b": NaN}', "NaN is Python's, not JSON's; write null or a number at line 2, column 7"],
    ["[-Infinity]", "-Infinity is Python's, not JSON's; write null or a number at line 1, column 2"],
    ['{"r": 8, "r": 4}', 'keys must be unique, got "r" twice at line 1, column 10'],
    ['{"a": {"\\u0062": 1, "b": 2}}', 'keys must be unique, got "b" twice'],
    ['{"a": 1', 'expected "}", got "the end" at line 1, column 8'],
    ["{'a': 1}", "a key must be a string in double quotes at line 1, column 2"],
    ['{"a" 1}', 'expected ":", got "1" at line 1, column 6'],
    ["[1 2]", 'expected "]", got "2" at line 1, column 4'],
    ["", 'a value must follow, got "the end" at line 1, column 1'],
    ["True", 'a value must follow, got "True"'],
    ['"a\nb"', "a string must hold no control characters"],
    ['"a\\"', "a string must be closed"],
    ["1 1", 'the text must end, got "1"'],
  ])("%s: says what and where", (text, message) => {
    expect(() => parseJson(text, "dir/config.json")).toThrow(
      expect.objectContaining({
        code: "CORRUPT",
        message: expect.stringContaining(`dir/config.json: must be JSON: ${message}`),
      }),
    );
  });

  test("__proto__ is a key like any other", () => {
    const parsed = parseStrictJson('{"__proto__": {"polluted": 1}}');
    expect(Object.entries(parsed as object)).toEqual([["__proto__", { polluted: 1 }]]);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });

  test("exact keeps floats that are whole and integers that a number cannot hold", () => {
    const text = "[0, 0.0, -0.0, 1e3, 0.5, 1000000000000000019884624838656, 9007199254740993]";
    expect(parseStrictJson(text, { exact: true })).toEqual([
      0,
      new PythonFloat(0),
      new PythonFloat(-0),
      new PythonFloat(1000),
      0.5,
      1000000000000000019884624838656n,
      9007199254740993n,
    ]);
    expect(parseStrictJson("[0.0, 1e3]")).toEqual([0, 1000]);
  });

  test("a file's error names folder and file", async () => {
    await expect(readJson(await folder("{"), "config.json")).rejects.toThrow(
      /^files in memory\/config\.json: must be JSON: /,
    );
    await expect(readJsonObject(await folder("[1]"), "config.json")).rejects.toThrow(
      "files in memory/config.json: must hold a JSON object, got [1]",
    );
    await expect(
      readJson(await openFolder(new Map([["config.json", new Uint8Array([0xff])]])), "config.json"),
    ).rejects.toThrow("files in memory/config.json: must be UTF-8 text");
  });
});

describe("stringifyPythonJson", () => {
  test("writes as json.dumps(value, indent=2, sort_keys=True)", () => {
    const value = {
      b: [1, [], {}],
      a: { é: '\u007f𝄞\n"', A: null },
      c: true,
      d: undefined,
      lora_dropout: new PythonFloat(0),
    };
    expect(stringifyPythonJson(value)).toBe(
      '{\n  "a": {\n    "A": null,\n    "\\u00e9": "\\u007f\\ud834\\udd1e\\n\\""\n  },\n  "b": [\n    1,\n    [],\n    {}\n  ],\n  "c": true,\n  "lora_dropout": 0.0\n}',
    );
  });

  test("sorts keys by code point, not by UTF-16 unit, and only when asked", () => {
    expect(stringifyPythonJson({ "𝄞": 1, "\uffff": 2 })).toBe('{\n  "\\uffff": 2,\n  "\\ud834\\udd1e": 1\n}');
    expect(stringifyPythonJson({ b: 1, a: 2 }, { sortKeys: false })).toBe('{\n  "b": 1,\n  "a": 2\n}');
  });

  test.each([
    [0.1, "0.1"],
    [1e-5, "1e-05"],
    [0.0001, "0.0001"],
    [1.5e-7, "1.5e-07"],
    [123456.75, "123456.75"],
    [1e22, "10000000000000000000000"],
    [new PythonFloat(1), "1.0"],
    [new PythonFloat(-0), "-0.0"],
    [new PythonFloat(1e15), "1000000000000000.0"],
    [new PythonFloat(1e16), "1e+16"],
    [new PythonFloat(1.25e100), "1.25e+100"],
    [NaN, "NaN"],
    [-Infinity, "-Infinity"],
    [10n ** 30n, `1${"0".repeat(30)}`],
  ])("%s is %s", (value, text) => expect(stringifyPythonJson(value)).toBe(text));

  test("what is written reads back the same", () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: "binary" }), (x) => {
        expect(JSON.parse(stringifyPythonJson(x))).toEqual(JSON.parse(JSON.stringify(x)));
      }),
    );
  });
});
