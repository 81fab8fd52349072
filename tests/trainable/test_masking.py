import pytest

from trainable.masking import holds_secret, masked, masked_address, secrets_below

SECRETS = {
    "postgresql://user:hunter2@host/db": "postgresql://host/db",
    "postgresql://user:hun/ter2@host/db": "postgresql://host/db",
    "postgresql://user:hun@ter2@host/db": "postgresql://host/db",
    "postgresql://user:hun?ter2@host/db": "postgresql://host/db",
    "postgresql://user:12345@host/db": "postgresql://host/db",
    "postgresql+psycopg://:hunter2@host:5432/db?sslmode=require": "postgresql+psycopg://host:5432/db?sslmode=require",
    "postgresql://host/db?user=me&sslpassword=hunter2&x=1": "postgresql://host/db?user=me&sslpassword=***&x=1",
    "https://host/x?access_token=hunter2": "https://host/x?access_token=***",
    "https://host/x?a=1&api_key=hunter2": "https://host/x?a=1&api_key=***",
    "https://host/x?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2": (
        "https://host/x?X-Amz-Credential=***&X-Amz-Signature=***"
    ),
    "https://host/x#access_token=hunter2": "https://host/x#access_token=***",
    "https://host/x?AWSAccessKeyId=hunter2&sig=hunter2&sslkey=hunter2": (
        "https://host/x?AWSAccessKeyId=***&sig=***&sslkey=***"
    ),
    "s3://key:hunter2@bucket/x": "s3://bucket/x",
}
OPEN = {
    "postgresql://user@host/db": "postgresql://host/db",
    "sqlite:////home/a@b/mlflow.db": "sqlite:////home/a@b/mlflow.db",
    "sqlite:///mlflow.db": "sqlite:///mlflow.db",
    "http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning": (
        "http://127.0.0.1:5000/#/experiments/3/runs?workflowType=machine_learning"
    ),
    "http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART&viewStateShareKey=0a1b": (
        "http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART&viewStateShareKey=0a1b"
    ),
    "https://host/x?author=me&design=2&keys=3": "https://host/x?author=me&design=2&keys=3",
    "abfs://box@account.dfs.core.windows.net/x": "abfs://box@account.dfs.core.windows.net/x",
    "hf://datasets/me/cells@main/train": "hf://datasets/me/cells@main/train",
    "data/images": "data/images",
    "images/a:b@c": "images/a:b@c",
}


@pytest.mark.parametrize(("address", "shown"), SECRETS.items())
def test_a_secret_is_taken_out_of_an_address_and_of_a_text_that_names_it(address, shown):
    assert masked_address(address) == shown
    assert masked(f"{address} does not answer") == f"{shown} does not answer"
    assert "ter2" not in masked(f"cannot open {address!r}: no such host ({address})")
    assert holds_secret(address)


def test_a_password_with_a_space_is_taken_out_of_an_address_that_stands_alone():
    assert masked_address("postgresql://user:hun ter2@host/db") == "postgresql://host/db"


@pytest.mark.parametrize(("address", "shown"), OPEN.items())
def test_an_address_without_a_secret_is_none(address, shown):
    assert masked_address(address) == masked(address) == shown
    assert not holds_secret(address)


def test_a_path_with_a_server_and_a_port_is_no_password():
    assert not holds_secret("http://127.0.0.1:5000/#/models/cells@champion")


def test_secrets_in_settings_are_found_wherever_they_are_nested():
    settings = {
        "search": {"storage": "postgresql://user:hunter2@host/db", "name": "a"},
        "base": {"data.source": ["a", "s3://a:b@c/d"]},
        "tracking": {"uri": "postgresql://user@host/db"},
    }
    assert list(secrets_below(settings)) == ["search.storage", "base.data.source.1"]
