// The OpenAI client for Node, unchanged: chat, stream, usage, errors. Arguments: base URL, key, model.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "대한민국의 수도는 어디인가요?" }];
const request = { model, messages, temperature: 0 };

const whole = await client.chat.completions.create(request);
let streamed = "";
let usage = null;
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...request, ...options })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const refusals = {};
for (const [name, wrong] of Object.entries({ n: { n: 99 }, model: { model: "none" } })) {
  try {
    await client.chat.completions.create({ ...request, ...wrong });
  } catch (error) {
    refusals[name] = [error.constructor.name, error.status, error.param];
  }
}
try {
  await new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list();
} catch (error) {
  refusals.key = [error.constructor.name, error.status, error.code];
}
const models = (await client.models.list()).data.map((each) => each.id);
console.log(JSON.stringify({ whole: whole.choices[0].message.content, streamed, usage, refusals, models }));
