import { Analytics } from '@segment/analytics-node'

const [url, writeKey, count] = process.argv.slice(2)
const client = new Analytics({ writeKey, host: url, flushAt: 20, flushInterval: 100, maxRetries: 50 })
for (let number = 0; number < Number(count); number++) {
  client.track({
    userId: `user${number}`,
    event: 'Email Opened',
    properties: { email_id: `mail${number}`, campaign_id: 7 },
    context: { traits: { email: `user${number}@example.com` } },
    timestamp: new Date(),
    messageId: `message${number}`,
  })
  client.page({ userId: `user${number}`, name: 'Home' })
  // Events are given over a while, as a program does, so that the collector can go away in between.
  if (number % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 20))
}
await client.closeAndFlush({ timeout: 60000 })
