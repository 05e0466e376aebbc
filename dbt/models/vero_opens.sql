WITH deliveries AS (
  SELECT email_id, MIN(happened_at) AS delivered_at
  FROM {{ ref('vero_events') }}
  WHERE step = 'delivered' AND email_id IS NOT NULL
  GROUP BY email_id
),
opens AS (
  SELECT o.*, d.delivered_at, LOWER(TRIM(o.context_user_agent)) AS agent
  FROM {{ ref('vero_events') }} AS o
  LEFT JOIN deliveries AS d ON d.email_id = o.email_id
  WHERE o.step = 'opened'
)
SELECT opens.*,
       CASE WHEN agent = 'mozilla/5.0' THEN 'apple_mail_privacy'
            WHEN agent LIKE '%chrome/42.0.2311.135 safari/537.36 edge/12.246 mozilla/5.0'
              THEN 'gmail_prefetch'
            WHEN agent LIKE '%headlesschrome%' OR agent LIKE 'python-%' OR agent LIKE 'curl/%'
              OR agent LIKE 'go-http-client%' OR agent LIKE 'java/%' THEN 'program'
            WHEN happened_at <= {{ dbt.dateadd('second', var('vero_machine_open_seconds'), 'delivered_at') }} THEN 'soon' END AS machine_open,
       CASE WHEN agent LIKE '%googleimageproxy%' THEN 'google'
            WHEN agent LIKE '%yahoomailproxy%' THEN 'yahoo' END AS image_proxy
FROM opens
