import { generateText, streamText, generateObject, tool, stepCountIs } from 'ai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { createOpenAI } from '@ai-sdk/openai';
import OpenAI from 'openai';
import { z } from 'zod';
const url = process.argv[2], model = 'Qwen/Qwen2.5-32B-Instruct';
const compatible = createOpenAICompatible({ name: 'vllm', baseURL: `${url}/v1`, apiKey: 'x', supportsStructuredOutputs: true })(model);
const responses = createOpenAI({ baseURL: `${url}/v1`, apiKey: 'x' }).responses(model);
const schema = z.object({ city: z.string(), days: z.number().int() });
let called = 0;
const tools = { weather: tool({ description: 'weather', inputSchema: z.object({ city: z.string() }), execute: async () => { called++; return 'sun'; } }) };
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'x', maxRetries: 0 });
const tries = {
  'ai plain': async () => (await generateText({ model: compatible, prompt: 'hi', maxRetries: 0 })).text,
  'ai stream': async () => { let t = ''; for await (const p of streamText({ model: compatible, prompt: 'hi' }).textStream) t += p; return t; },
  'ai tools': async () => { const r = await generateText({ model: compatible, prompt: 'hi', tools, stopWhen: stepCountIs(4), maxRetries: 0 }); return called && r.text; },
  'ai tools required': async () => (await generateText({ model: compatible, prompt: 'hi', tools, toolChoice: 'required', maxRetries: 0 })).toolCalls.length,
  'ai stream tools': async () => { called = 0; let t = ''; for await (const p of streamText({ model: compatible, prompt: 'hi', tools, stopWhen: stepCountIs(4) }).textStream) t += p; return called && t; },
  'ai schema': async () => (await generateObject({ model: compatible, schema, prompt: 'hi', maxRetries: 0 })).object.city,
  'ai responses': async () => (await generateText({ model: responses, prompt: 'hi', maxRetries: 0 })).text,
  'ai responses tools': async () => { called = 0; const r = await generateText({ model: responses, prompt: 'hi', tools, stopWhen: stepCountIs(4), maxRetries: 0 }); return called && r.text; },
  'ai responses schema': async () => (await generateObject({ model: responses, schema, prompt: 'hi', maxRetries: 0 })).object.city,
  'openai-node plain': async () => (await client.chat.completions.create({ model, messages: [{ role: 'user', content: 'hi' }], max_tokens: 5 })).choices[0].message.content,
  'openai-node stream tools': async () => { const s = client.chat.completions.stream({ model, messages: [{ role: 'user', content: 'hi' }], tools: [{ type: 'function', function: { name: 'w', parameters: { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] } } }], tool_choice: 'required' }); const m = await s.finalMessage(); return JSON.parse(m.tool_calls[0].function.arguments).a !== undefined; },
  'openai-node responses': async () => (await client.responses.create({ model, input: 'hi' })).output_text,
};
for (const [name, f] of Object.entries(tries)) { try { console.log(name + ':', (await f()) ? 'works' : 'EMPTY'); } catch (e) { console.log(name + ':', e.name, String(e.message).slice(0, 300)); } }
