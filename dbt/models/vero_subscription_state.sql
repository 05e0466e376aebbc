WITH events AS (
  SELECT CASE WHEN step = 'resubscribed' THEN 'subscribed'
              WHEN step IN ('unsubscribed', 'spam') THEN step
              WHEN step = 'bounced' AND LOWER(TRIM(bounce_type)) = 'hard' THEN 'bounced'
         END AS state,
         happened_at, email, recipient
  FROM {{ ref('vero_events') }}
  WHERE channel = 'email' AND recipient IS NOT NULL
),
known AS (
  SELECT recipient,
         MIN(happened_at) AS first_seen_at,
         MAX(CASE WHEN state IS NOT NULL THEN happened_at END) AS changed_at,
         MAX(CASE WHEN state = 'subscribed' THEN happened_at END) AS resubscribed_at,
         MAX(CASE WHEN state = 'unsubscribed' THEN happened_at END) AS unsubscribed_at,
         MAX(CASE WHEN state = 'bounced' THEN happened_at END) AS bounced_at,
         MAX(CASE WHEN state = 'spam' THEN happened_at END) AS spam_at,
         MAX(CASE WHEN email IS NOT NULL THEN happened_at END) AS addressed_at
  FROM events
  GROUP BY recipient
),
-- The latest change counts. Of several at the same time, the one that forbids most.
latest AS (
  SELECT known.*,
         CASE WHEN spam_at = changed_at THEN 'spam'
              WHEN bounced_at = changed_at THEN 'bounced'
              WHEN unsubscribed_at = changed_at THEN 'unsubscribed'
              ELSE 'subscribed' END AS state
  FROM known
),
-- A state began with its first event after the last event of another state.
earlier AS (
  SELECT e.recipient, MAX(e.happened_at) AS ended_at
  FROM events AS e
  JOIN latest AS l ON l.recipient = e.recipient
  WHERE e.state <> l.state
  GROUP BY e.recipient
),
begun AS (
  SELECT e.recipient, MIN(e.happened_at) AS begun_at
  FROM events AS e
  JOIN latest AS l ON l.recipient = e.recipient AND l.state = e.state
  LEFT JOIN earlier AS o ON o.recipient = e.recipient
  WHERE o.ended_at IS NULL OR e.happened_at >= o.ended_at
  GROUP BY e.recipient
),
addresses AS (
  SELECT e.recipient, MAX(e.email) AS email
  FROM events AS e
  JOIN known AS k ON k.recipient = e.recipient AND k.addressed_at = e.happened_at
  GROUP BY e.recipient
)
SELECT l.recipient, a.email, l.state,
       COALESCE(b.begun_at, l.first_seen_at) AS since,
       l.first_seen_at, l.resubscribed_at, l.unsubscribed_at, l.bounced_at, l.spam_at
FROM latest AS l
LEFT JOIN begun AS b ON b.recipient = l.recipient
LEFT JOIN addresses AS a ON a.recipient = l.recipient
