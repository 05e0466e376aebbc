{{ config(materialized='table') }}

{% set columns = [
  'id', 'timestamp', 'loaded_at', 'user_id', 'anonymous_id', 'context_traits_email',
  'context_user_agent', 'email_id', 'email_subject', 'campaign_id', 'campaign_name',
  'campaign_channel'
] %}
{% set steps = [
  ('sent', 'email_sent'), ('delivered', 'email_delivered'), ('opened', 'email_opened'),
  ('clicked', 'email_link_clicked'), ('bounced', 'email_bounced'),
  ('unsubscribed', 'email_unsubscribed'), ('spam', 'email_marked_as_spam'),
  ('resubscribed', 'email_resubscribed')
] %}
WITH loaded AS (
  {% for step, table in steps %}
  SELECT '{{ step }}' AS step, e.*
  FROM (
    {{ vero_table(table, columns + ['bounce_type', 'bounce_code', 'bounce_message']) }}
  ) AS e
  {% if not loop.last %}UNION ALL{% endif %}
  {% endfor %}
),
-- A target that only appends holds an event again after an interrupted run.
numbered AS (
  SELECT loaded.*, ROW_NUMBER() OVER (PARTITION BY id ORDER BY loaded_at DESC) AS nth
  FROM loaded
)
SELECT step, id, happened_at, loaded_at,
       COALESCE(user_id, anonymous_id, LOWER(context_traits_email)) AS recipient,
       context_traits_email AS email,
       COALESCE(NULLIF(LOWER(TRIM(campaign_channel)), ''), 'email') AS channel,
       email_id, email_subject, campaign_id, campaign_name, context_user_agent,
       bounce_type, bounce_code, bounce_message
FROM numbered
WHERE nth = 1
