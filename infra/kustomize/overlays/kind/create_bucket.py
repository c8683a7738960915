"""Creates the bucket of ARTIFACTS_DESTINATION unless it is there; waits for the store to come up."""

import os
import time
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

TRIES = 60

bucket = urlsplit(os.environ["ARTIFACTS_DESTINATION"]).netloc
client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
for attempt in range(TRIES):
    try:
        if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=bucket)
        print(f"bucket {bucket} is there")
        break
    except (BotoCoreError, ClientError) as error:
        if attempt == TRIES - 1:
            raise SystemExit(f"bucket {bucket}: {error}") from error
        time.sleep(2)
