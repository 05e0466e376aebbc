import sys
from datetime import UTC, datetime

from rudderstack.analytics.client import Client

url, write_key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = Client(
    write_key, host=url, gzip=True, upload_size=20, upload_interval=0.1, max_retries=50, timeout=5
)
for number in range(count):
    client.track(
        user_id=f"user{number}",
        event="Email Opened",
        properties={"email_id": f"mail{number}", "campaign_id": 7},
        context={"traits": {"email": f"user{number}@example.com"}},
        timestamp=datetime.now(tz=UTC),
        message_id=f"message{number}",
    )
    client.identify(user_id=f"user{number}", traits={"plan": "pro"})
client.flush()
client.shutdown()
