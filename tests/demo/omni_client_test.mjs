// The JavaScript client in Node against the scripted server whose address is the first argument.
// Each line of standard input is a JSON array [name of a step, argument]; each result is a line.

import { createInterface } from "node:readline";

import { OmniClient, OmniError, decodePcm, encodePcm, toPcm16 } from "../../demo/static/omni-client.js";

const events = [];
const add = {
  name: "add",
  description: "Add two numbers.",
  parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } } },
  run: ({ a, b }) => {
    if (a === 13) throw new Error("13 is not a number");
    return a + b;
  },
};
let client;

const steps = {
  async connect(options) {
    client = new OmniClient({ url: process.argv[2], ...options });
    for (const name of ["client.connected", "client.disconnected", "client.connecting"]) {
      client.on(name, (event) => events.push([name, event]));
    }
    await client.connect();
    return { id: client.sessionId, open: client.open };
  },
  ask: ({ question, tools, ...options }) =>
    client.ask(question, { ...options, ...(tools ? { tools: [add] } : {}) }),
  async stopped() {
    const stop = new AbortController();
    client.on("response.output_text.delta", () => stop.abort(new Error("enough")));
    return client.ask("A story", { signal: stop.signal });
  },
  async spoken(samples) {
    const reply = await client.ask({ audio: Float32Array.from(samples), text: "And?" });
    return { ...reply, audio: [...reply.audio].slice(0, 3) };
  },
  update: (session) => client.updateSession(session),
  liveTool: async () => {
    await client.updateSession({ tools: [add] });
    const said = new Promise((done) => client.on("response.output_text.delta", done));
    client.sendText("1 + 2?");
    client.createResponse();
    return (await said).delta;
  },
  async waitFor(name) {
    while (!events.some(([type]) => type === name)) await new Promise((done) => setTimeout(done, 5));
    return events.splice(0).map(([type, event]) => [type, event]);
  },
  send: ([type, fields]) => client.send(type, fields) !== null,
  async audio(count) {
    await client.sendAudio(new Float32Array(count));
    return client.commit() !== null;
  },
  pcm: (samples) => {
    const text = encodePcm(toPcm16(Float32Array.from(samples)));
    return [text, [...decodePcm(text)]];
  },
  close: () => client.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, argument] = JSON.parse(line);
  let result;
  try {
    result = { value: (await steps[name](argument)) ?? null };
  } catch (error) {
    result = { error: error.message, code: error.code, omni: error instanceof OmniError };
  }
  console.log(JSON.stringify(result));
}
client?.close();
