-- Recipients can be in several weeks, events cannot.
SELECT campaign_id, campaign
FROM {{ ref('vero_campaign_funnel') }}
GROUP BY campaign_id, campaign
HAVING SUM(CASE WHEN week IS NULL THEN sent + delivered + opened + clicked ELSE 0 END)
    <> SUM(CASE WHEN week IS NULL THEN 0 ELSE sent + delivered + opened + clicked END)
