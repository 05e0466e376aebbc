-- The campaign funnel, per campaign (week is NULL) and per campaign and week (the Monday, UTC).
-- For DuckDB, PostgreSQL, Snowflake and BigQuery alike, where the time zone is set to UTC.
WITH every_event AS (
  SELECT 'sent' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_sent AS t
  UNION ALL
  SELECT 'delivered' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_delivered AS t
  UNION ALL
  SELECT 'opened' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_opened AS t
  UNION ALL
  SELECT 'clicked' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_link_clicked AS t
  UNION ALL
  SELECT 'bounced' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_bounced AS t
  UNION ALL
  SELECT 'unsubscribed' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_unsubscribed AS t
  UNION ALL
  SELECT 'spam' AS step, t.id, t.timestamp AS happened_at,
         t.email_id, t.campaign_id, t.campaign_name,
         COALESCE(NULLIF(LOWER(TRIM(t.campaign_channel)), ''), 'email') AS channel,
         COALESCE(t.user_id, t.anonymous_id, LOWER(t.context_traits_email)) AS recipient
  FROM vero.email_marked_as_spam AS t
),
-- Push and SMS messages are in the same tables. An event without a channel is an email's. For other
-- channels, name them here; for all channels, leave out the condition.
events AS (
  SELECT step, id, happened_at, email_id, campaign_id, campaign_name, recipient
  FROM every_event
  WHERE channel = 'email'
),
-- Some events, unsubscribes above all, lack the campaign's id. Their email's other events have it;
-- or else it is that of the campaign which alone has had the name.
emails AS (
  SELECT email_id, MIN(campaign_id) AS found_id
  FROM events
  WHERE email_id IS NOT NULL AND campaign_id IS NOT NULL
  GROUP BY email_id
),
owners AS (
  SELECT campaign_name, MIN(campaign_id) AS found_id
  FROM events
  WHERE campaign_name IS NOT NULL AND campaign_id IS NOT NULL
  GROUP BY campaign_name
  HAVING COUNT(DISTINCT campaign_id) = 1
),
-- Names change: a campaign is shown by its latest.
latest AS (
  SELECT campaign_id, MAX(happened_at) AS named_at
  FROM events
  WHERE campaign_id IS NOT NULL AND campaign_name IS NOT NULL
  GROUP BY campaign_id
),
names AS (
  SELECT e.campaign_id, MAX(e.campaign_name) AS latest_name
  FROM events AS e
  JOIN latest AS l ON l.campaign_id = e.campaign_id AND l.named_at = e.happened_at
  GROUP BY e.campaign_id
),
-- The Monday of a date, by arithmetic: each dialect truncates to a week in a way of its own. A year
-- that begins in March has its leap day at its end; weekday is 0 on a Monday, apart from whole weeks.
dates AS (
  SELECT DISTINCT CAST(happened_at AS DATE) AS event_date
  FROM events
),
shifted AS (
  SELECT event_date,
         EXTRACT(DAY FROM event_date) AS d,
         EXTRACT(MONTH FROM event_date)
           + CASE WHEN EXTRACT(MONTH FROM event_date) < 3 THEN 9 ELSE -3 END AS m,
         EXTRACT(YEAR FROM event_date)
           - CASE WHEN EXTRACT(MONTH FROM event_date) < 3 THEN 1 ELSE 0 END AS y
  FROM dates
),
weekdays AS (
  SELECT event_date,
         d + FLOOR((153 * m + 2) / 5)
           + y + FLOOR(y / 4) - FLOOR(y / 100) + FLOOR(y / 400) + 1 AS weekday
  FROM shifted
),
weeks AS (
  SELECT event_date, event_date - CAST(weekday - 7 * FLOOR(weekday / 7) AS INTEGER) AS week
  FROM weekdays
),
placed AS (
  SELECT e.step, e.id, e.recipient, e.campaign_name, e.happened_at, w.week,
         COALESCE(e.campaign_id, m.found_id, o.found_id) AS campaign_id
  FROM events AS e
  JOIN weeks AS w ON w.event_date = CAST(e.happened_at AS DATE)
  LEFT JOIN emails AS m ON m.email_id = e.email_id
  LEFT JOIN owners AS o ON o.campaign_name = e.campaign_name
),
named AS (
  SELECT p.step, p.id, p.recipient, p.happened_at, p.week, p.campaign_id,
         CASE WHEN p.campaign_id IS NULL THEN COALESCE(p.campaign_name, '(no campaign)')
              ELSE COALESCE(n.latest_name, '(no name)') END AS campaign
  FROM placed AS p
  LEFT JOIN names AS n ON n.campaign_id = p.campaign_id
),
spans AS (
  SELECT step, id, recipient, campaign_id, campaign, week FROM named
  UNION ALL
  SELECT step, id, recipient, campaign_id, campaign, CAST(NULL AS DATE) AS week FROM named
),
-- Distinct, as a target that appends may hold an event twice, and one recipient opens often.
counts AS (
  SELECT campaign_id, campaign, week, step,
         COUNT(DISTINCT id) AS ids, COUNT(DISTINCT recipient) AS recipients
  FROM spans
  GROUP BY campaign_id, campaign, week, step
),
funnel AS (
  SELECT campaign_id, campaign, week,
         COALESCE(MAX(CASE WHEN step = 'sent' THEN ids END), 0) AS sent,
         COALESCE(MAX(CASE WHEN step = 'delivered' THEN ids END), 0) AS delivered,
         COALESCE(MAX(CASE WHEN step = 'opened' THEN ids END), 0) AS opened,
         COALESCE(MAX(CASE WHEN step = 'clicked' THEN ids END), 0) AS clicked,
         COALESCE(MAX(CASE WHEN step = 'bounced' THEN ids END), 0) AS bounced,
         COALESCE(MAX(CASE WHEN step = 'unsubscribed' THEN ids END), 0) AS unsubscribed,
         COALESCE(MAX(CASE WHEN step = 'spam' THEN ids END), 0) AS spam,
         COALESCE(MAX(CASE WHEN step = 'sent' THEN recipients END), 0) AS sent_recipients,
         COALESCE(MAX(CASE WHEN step = 'delivered' THEN recipients END), 0) AS delivered_recipients,
         COALESCE(MAX(CASE WHEN step = 'opened' THEN recipients END), 0) AS opened_recipients,
         COALESCE(MAX(CASE WHEN step = 'clicked' THEN recipients END), 0) AS clicked_recipients,
         COALESCE(MAX(CASE WHEN step = 'bounced' THEN recipients END), 0) AS bounced_recipients,
         COALESCE(MAX(CASE WHEN step = 'unsubscribed' THEN recipients END), 0)
           AS unsubscribed_recipients,
         COALESCE(MAX(CASE WHEN step = 'spam' THEN recipients END), 0) AS spam_recipients
  FROM counts
  GROUP BY campaign_id, campaign, week
)
-- Rates are of unique recipients. A division by nothing is NULL.
SELECT campaign_id, campaign, week,
       sent, delivered, opened, clicked, bounced, unsubscribed, spam,
       sent_recipients, delivered_recipients, opened_recipients, clicked_recipients,
       bounced_recipients, unsubscribed_recipients, spam_recipients,
       1.0 * delivered_recipients / NULLIF(sent_recipients, 0) AS delivered_rate,
       1.0 * opened_recipients / NULLIF(delivered_recipients, 0) AS opened_rate,
       1.0 * clicked_recipients / NULLIF(delivered_recipients, 0) AS clicked_rate,
       1.0 * bounced_recipients / NULLIF(sent_recipients, 0) AS bounced_rate,
       1.0 * unsubscribed_recipients / NULLIF(delivered_recipients, 0) AS unsubscribed_rate,
       1.0 * spam_recipients / NULLIF(delivered_recipients, 0) AS spam_rate
FROM funnel
