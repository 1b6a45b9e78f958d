// A conversation of the Agents SDK with the server, over its stock WebSocket transport.
//
//   node agents.mjs ws://host:port/v1/realtime QUESTION.pcm
//
// QUESTION.pcm is 16-bit mono sound at 24 kHz. The last line of the output is a JSON report; the
// exit code is 1 when the client saw an error or waited in vain.

import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents/realtime';
import { z } from 'zod';

const [url, question] = process.argv.slice(2);
const report = { errors: [], calls: [], texts: {} };

const weather = tool({
  name: 'get_weather',
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    report.calls.push(city);
    return `It is 31 degrees and sunny in ${city}.`;
  },
});
const storyteller = new RealtimeAgent({
  name: 'Storyteller',
  handoffDescription: 'Tells stories.',
  instructions: 'You are a teller of long stories.',
});
const assistant = new RealtimeAgent({
  name: 'Assistant',
  instructions: 'You are an assistant. Answer in one short sentence.',
  tools: [weather],
  handoffs: [storyteller],
});

/** A session of the SDK, and what came through it. */
class Talk {
  seen = [];
  sound = 0;
  interrupted = 0;

  constructor(agent) {
    this.transport = new OpenAIRealtimeWebSocket({ url });
    this.session = new RealtimeSession(agent, {
      transport: this.transport,
      // A small model calls tools too gladly: here it does when it is told to.
      config: { toolChoice: 'none', providerData: { temperature: 0, max_output_tokens: 300 } },
    });
    this.session.on('error', (error) => report.errors.push(JSON.stringify(error.error ?? error)));
    this.session.on('transport_event', (event) => this.seen.push(event));
    this.session.on('audio', (event) => (this.sound += event.data.byteLength));
    this.session.on('audio_interrupted', () => (this.interrupted += 1));
    this.session.on('agent_handoff', (_, from, to) => (report.handoff = [from.name, to.name]));
  }

  async connect() {
    const configured = this.until('session.updated');
    await this.session.connect({ apiKey: 'none' });
    await configured;
  }

  /** Wait until an event of this type comes that also is as `wanted` says. */
  async until(type, wanted = () => true, seconds = 60) {
    const begin = this.seen.length;
    for (let waited = 0; waited < seconds * 50; waited += 1) {
      const event = this.seen.slice(begin).find((e) => e.type === type && wanted(e));
      if (event) return event;
      await sleep(20);
    }
    throw new Error(`${type} did not come; last: ${this.seen.slice(-5).map((e) => e.type)}`);
  }

  /** What is answered last, in words. */
  get answer() {
    const item = this.session.history.findLast(
      (i) => i.type === 'message' && i.role === 'assistant',
    );
    return item.content.map((part) => part.text ?? part.transcript ?? '').join(' ');
  }

  /** Speak until the server finds that the turn is over. */
  async speak(pcm) {
    const padded = Buffer.concat([pcm, Buffer.alloc(24_000 * 2 * 3)]);
    let hearing = true;
    const heard = this.until('input_audio_buffer.committed').finally(() => (hearing = false));
    const step = 4800; // 0.1 s
    for (let at = 0; at < padded.length && hearing; at += step) {
      const part = padded.subarray(at, at + step);
      this.session.sendAudio(
        part.buffer.slice(part.byteOffset, part.byteOffset + part.length),
      );
      await sleep(90);
    }
    await heard;
  }

  /** Ask, and have exactly this tool called; wait for the answer that follows its output. */
  async call(text, name) {
    const answered = this.until('response.done').then(() => this.until('response.done'));
    this.transport.sendMessage(text, {}, { triggerResponse: false });
    this.transport.requestResponse({ tool_choice: { type: 'function', name } });
    await answered;
  }
}

async function answersAndTools(pcm) {
  const talk = new Talk(assistant);
  await talk.connect();
  const { session } = talk;

  let done = talk.until('response.done');
  session.sendMessage('What is the capital of France?');
  await done;
  report.texts.typed = talk.answer;
  report.typedSound = talk.sound;

  done = talk.until('response.done');
  const transcribed = talk.until('conversation.item.input_audio_transcription.completed');
  const retrieved = talk.until('conversation.item.retrieved');
  await talk.speak(pcm);
  report.texts.heard = (await transcribed).transcript;
  await retrieved;
  await done;
  report.texts.spoken = talk.answer;
  const asked = session.history.findLast((i) => i.type === 'message' && i.role === 'user');
  report.texts.historyHeard = asked.content[0].transcript;

  await talk.call('How is the weather in Oslo?', 'get_weather');
  report.texts.weather = talk.answer;
  report.toolItems = session.history
    .filter((item) => item.type === 'function_call')
    .map(({ name, status, output }) => ({ name, status, output }));

  const changed = talk.until('session.updated');
  await talk.call('Let me talk to the storyteller.', 'transfer_to_Storyteller');
  report.instructions = (await changed).session.instructions;

  const removed = talk.until('conversation.item.deleted');
  const created = talk.until('conversation.item.added');
  const before = session.history.map((item) => item.itemId);
  session.updateHistory((history) => [
    ...history.slice(1),
    {
      itemId: 'item_written',
      type: 'message',
      role: 'user',
      status: 'completed',
      content: [{ type: 'input_text', text: 'My name is Ada.' }],
    },
  ]);
  await removed;
  await created;
  await sleep(50);
  const after = session.history.map((item) => item.itemId);
  report.history = { removed: !after.includes(before[0]), last: after.at(-1) };
  report.usage = session.usage;
  session.close();
}

async function interruptions(pcm) {
  const talk = new Talk(storyteller);
  await talk.connect();
  const { session } = talk;
  const tell = async (text) => {
    const begun = talk.until('response.output_audio.delta');
    session.sendMessage(text);
    return (await begun).response_id;
  };

  // By a call of the application's: cancelled, and cut to what was heard.
  let story = await tell('Tell me a long story about a fox, a crow and a cat.');
  const truncated = talk.until('conversation.item.truncated');
  let cut = talk.until('response.done', (e) => e.response.id === story);
  session.interrupt();
  report.interruptedStatus = (await cut).response.status;
  await truncated;

  // By voice.
  story = await tell('Tell me a long story about a dog, a cow and a hen.');
  cut = talk.until('response.done', (e) => e.response.id === story);
  const next = talk.until('response.done', (e) => e.response.id !== story);
  await talk.speak(pcm);
  report.bargeInStatus = (await cut).response.status;
  await next;
  report.texts.bargeIn = talk.answer;
  report.interrupted = talk.interrupted;
  session.close();
}

try {
  const pcm = await readFile(question);
  await answersAndTools(pcm);
  await interruptions(pcm);
} catch (error) {
  report.errors.push(String(error.stack ?? error));
}
console.log(JSON.stringify(report));
process.exit(report.errors.length ? 1 : 0);
