"""From the address of an object in a bucket to one that can be asked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from yarl import URL

from grym_fetch import AssetManager
from grym_fetch.core.buckets import BucketAddress
from grym_fetch.core.signatures import is_signed
from grym_fetch.errors import PolicyRefused
from grym_fetch.net.buckets import CLOCK_SKEW, SIGNED_FOR, BucketSigner, azure_signature
from grym_fetch.testing import seeded_bytes
from tests.support.buckets import shared_by
from tests.support.hubs import HubRequest, LoopbackServer, Reply, ranged
from tests.support.project import Project

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "the-secret-key-of-aws"}
AZURE_KEY = "dGhlLXNlY3JldC1rZXktb2YtYXp1cmUtc3RvcmFnZQ=="

pytestmark = pytest.mark.package("obstore")


@pytest.fixture(autouse=True)
def _no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's user has is not looked at."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


async def signed(text: str, **environ: str) -> URL:
    """The address that the signer makes."""
    return URL(await BucketSigner(environ).sign(text), encoded=True)


@pytest.mark.parametrize(
    ("address", "environ", "expected"),
    [
        ("s3://models/a/b.bin", {}, "https://models.s3.us-east-1.amazonaws.com/a/b.bin"),
        ("s3://models/a%20b.bin", {"AWS_REGION": "eu-west-1"}, "https://models.s3.eu-west-1.amazonaws.com/a%20b.bin"),
        ("s3://my.models/a", {}, "https://s3.us-east-1.amazonaws.com/my.models/a"),
        ("s3://models/a", {"AWS_ENDPOINT_URL": "https://r2.example.org/"}, "https://r2.example.org/models/a"),
        ("s3://models/a", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ENDPOINT_URL": "https://x.example.org"},
         "http://127.0.0.1:9/models/a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("has_keys", [False, True])
async def test_s3(address: str, environ: dict[str, str], expected: str, has_keys: bool) -> None:
    """Region and endpoint come from the standard variables. Without keys the plain address is asked: it may be open."""
    found = await signed(address, **environ, **(KEYS if has_keys else {}))
    assert str(found.with_query(None)) == expected
    assert is_signed(found) == has_keys
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(found)


@pytest.mark.parametrize(("style", "is_hosted"), [("1", True), (" True ", True), ("false", False), ("0", False)])
async def test_where_the_name_of_a_bucket_goes(style: str, is_hosted: bool) -> None:
    """Into the host or into the path, as the variable of Amazon's own tools says, whatever the endpoint is."""
    for endpoint in ("https://s3.us-east-1.amazonaws.com", "https://r2.example.org"):
        environ = {} if "amazonaws" in endpoint else {"AWS_ENDPOINT_URL": endpoint}
        found = await signed("s3://models/a", **environ, AWS_VIRTUAL_HOSTED_STYLE_REQUEST=style)
        host = endpoint.removeprefix("https://")
        assert str(found) == (f"https://models.{host}/a" if is_hosted else f"{endpoint}/models/a")


ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "acct"}
ROLE = {"GRYM_FETCH_INSTANCE_ROLE": "yes"}
CLIENT = {"AZURE_CLIENT_ID": "me", "AZURE_TENANT_ID": "us", "AZURE_CLIENT_SECRET": "the-secret"}


@pytest.mark.shows("S9")
@pytest.mark.parametrize(
    ("address", "environ", "way"),
    [
        ("s3://models/a", {}, "plain"),
        ("s3://models/a", KEYS, "at hand"),
        ("s3://models/a", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "me"}, "asked for"),
        ("s3://models/a", ROLE, "asked for"),
        ("gs://models/a", {}, "plain"),
        ("gs://models/a", ROLE, "asked for"),
        ("az://models/a", ACCOUNT, "plain"),
        ("az://models/a", {**ACCOUNT, **CLIENT}, "asked for"),
        ("az://models/a", {**ACCOUNT, **ROLE}, "asked for"),
    ],
)
async def test_who_is_asked_for_credentials(
    monkeypatch: pytest.MonkeyPatch, address: str, environ: dict[str, str], way: str
) -> None:
    """Nobody, or a service that the variables name or the user allows: without holding up the loop."""
    used = ["plain"]

    async def sign_async(*_: object) -> str:
        used.append("asked for")
        return "https://signed.example/"

    def sign(*_: object) -> str:
        used.append("at hand")
        return "https://signed.example/"

    monkeypatch.setattr("obstore.sign", sign)
    monkeypatch.setattr("obstore.sign_async", sign_async)
    await signed(address, **environ)
    assert used[-1] == way


async def test_a_profile_has_keys_region_and_endpoint(tmp_path: Path) -> None:
    """As the `aws` command reads them; the environment wins."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[work]\naws_access_key_id = WORKID\naws_secret_access_key = s\n")
    (tmp_path / ".aws/config").write_text(
        "[profile work]\nregion = eu-north-1\nendpoint_url = https://s3.example.org\n"
    )
    home = {"HOME": str(tmp_path)}
    found = await signed("s3://models/a", **home, AWS_PROFILE="work")
    assert found.host == "s3.example.org"
    assert found.query["X-Amz-Credential"].startswith("WORKID/")
    assert "/eu-north-1/" in found.query["X-Amz-Credential"]
    assert not is_signed(await signed("s3://models/a", **home))
    found = await signed("s3://models/a", **home, AWS_PROFILE="work", **KEYS)
    assert found.query["X-Amz-Credential"].startswith("AKIDEXAMPLE/")


async def test_a_session_token_is_part_of_the_signature() -> None:
    """Keys for a while come with a token."""
    found = await signed("s3://models/a", **KEYS, AWS_SESSION_TOKEN="the-session-token")
    assert found.query["X-Amz-Security-Token"] == "the-session-token"


@pytest.mark.shows("S7")
@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("s3://models/a", {**KEYS, "AWS_ENDPOINT_URL": "http://s3.example.org"}),
        ("az://models/a", {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ENDPOINT": "http://az.example.org",
                           "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY}),
    ],
)  # fmt: skip
async def test_no_signature_over_plain_http(address: str, environ: dict[str, str]) -> None:
    """Anybody on the way could use it."""
    with pytest.raises(PolicyRefused, match="plain http"):
        await signed(address, **environ)


async def test_azure() -> None:
    """A key signs, a token for shared access goes along as it is, and a public container needs nothing."""
    account = {"AZURE_STORAGE_ACCOUNT_NAME": "acct"}
    plain = await signed("az://models/a/b.bin", **account)
    assert str(plain) == "https://acct.blob.core.windows.net/models/a/b.bin"
    shared = await signed("az://models/a", **account, AZURE_STORAGE_SAS_TOKEN="?sv=1&se=2030&sig=abcdefgh")
    assert str(shared) == "https://acct.blob.core.windows.net/models/a?sv=1&se=2030&sig=abcdefgh"
    by_key = await signed("az://models/a", **account, AZURE_STORAGE_ACCOUNT_KEY=AZURE_KEY)
    assert is_signed(by_key)
    assert by_key.host == "acct.blob.core.windows.net"
    with pytest.raises(PolicyRefused, match="AZURE_STORAGE_ACCOUNT_NAME"):
        await signed("az://models/a")


@pytest.mark.parametrize("key", ["v1/a.bin", "a+b.bin", "a~b(1).bin"])
def test_a_signature_for_azure_is_that_of_its_own_library(key: str) -> None:
    """Where the name of a blob needs no encoding, obstore signs the same."""
    from obstore import sign
    from obstore.store import AzureStore

    store = AzureStore("models", account_name="acct", account_key=AZURE_KEY)
    theirs = URL(sign(store, "GET", key, SIGNED_FOR), encoded=True).query
    began = datetime.fromisoformat(theirs["st"])
    ours = URL("?" + azure_signature("acct", AZURE_KEY, BucketAddress("az", "models", key), began + CLOCK_SKEW)).query
    assert ours["st"] == theirs["st"]
    text = "\n".join(
        ["r", theirs["st"], theirs["se"], f"/blob/acct/models/{key}", "", "", "", theirs["sv"], "b", *[""] * 7]
    )
    digest = hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")
    assert theirs["sig"] == base64.b64encode(digest).decode()
    assert (ours["sv"], ours["sp"], ours["sr"]) == (theirs["sv"], theirs["sp"], theirs["sr"])


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "signature"),
    [
        ("v1/a.bin", "ikDW+7FLAFrxtu6SnGRwlxJkeu+xn4o+51LGk2Hc7UA="),
        ("a b+c/é.bin", "vfIWvpF/2YZfoDonAe33TOhbV2QUxd4D8Omvy8LxNfk="),
        ("100%.bin", "HUYPCw/aSQR4ZWSD5CldmfyPZAOmsV0tgoilemcPn+A="),
        ("a%20b", "99VUdEj5QiERG4KpL1bI6hU1KptWE/CrVNGH9bFppqg="),
        ("a,b@c:d'(e)*!~[=].bin", "1Hlt1jEjIhKupAcER1J0PsfrOrbUzWYim23BAsmxmic="),
        ("a?b#c", "/Bd7TcmqIRp27TYXhD3kOGxcX/SG7/+eyhvrxauvHhA="),
    ],
)
def test_a_signature_for_azure_is_what_microsofts_library_signs(key: str, signature: str) -> None:
    """These were made by azure-storage-blob 12.19.0, of the name as it is, and are accepted by Azurite."""
    query = URL("?" + azure_signature("acct", AZURE_KEY, BucketAddress("az", "models", key), NOON)).query
    assert query["sig"] == signature
    assert (query["st"], query["se"]) == ("2026-01-01T11:45:00Z", "2026-01-01T13:00:00Z")


async def sync_signed(
    folder: Path, address: str, is_signed: Callable[[HubRequest], bool], environ: Callable[[str], dict[str, str]]
) -> None:
    """Sync an asset from an imitation that serves what is signed, and see that nothing else was sent for it."""
    content = seeded_bytes(300_000, seed=9)

    def answer(request: HubRequest) -> Reply:
        return ranged(request, content, ETag='"1"') if is_signed(request) else Reply(403)

    server = LoopbackServer(answer)
    project = Project(folder)
    final = project.add("voices", [address], content)
    try:
        async with AssetManager(config=project.manifest, environ=environ(server.url)) as manager:
            await manager.sync()
    finally:
        server.close()
    assert final.read_bytes() == content
    assert all("authorization" not in request.fields for request in server.requests)


@pytest.mark.parametrize("key", ["my voices+1.bin", "wü/100%.bin"])
async def test_a_signature_for_azure_is_checked_by_a_server(key: str, tmp_path: Path) -> None:
    """An imitation that has the key serves what is asked for with it, and nothing is sent beside."""

    def environ(url: str) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": "acct",
            "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
            "AZURE_STORAGE_ENDPOINT": f"{url}/acct",
        }

    address = str(BucketAddress("az", "models", key))
    await sync_signed(tmp_path, address, lambda asked: shared_by(AZURE_KEY, asked, datetime.now(UTC)), environ)


def test_the_imitation_of_azure_is_strict() -> None:
    """Another name, another key, another time and more rights than were signed are refused."""
    query = azure_signature("acct", AZURE_KEY, BucketAddress("az", "models", "a"), NOON)
    other = base64.b64encode(b"another key").decode()

    def is_shared(target: str, key: str = AZURE_KEY, now: datetime = NOON) -> bool:
        return shared_by(key, HubRequest("GET", target, {}), now)

    assert is_shared(f"/acct/models/a?{query}")
    assert not is_shared(f"/acct/models/b?{query}")
    assert not is_shared(f"/acct/models/a?{query.replace('sp=r', 'sp=rw')}")
    assert not is_shared(f"/acct/models/a?{query}", key=other)
    assert not is_shared(f"/acct/models/a?{query}", now=NOON + SIGNED_FOR)
    assert not is_shared(f"/acct/models/a?{query}", now=NOON - 2 * CLOCK_SKEW)


@pytest.mark.shows("S9")
@pytest.mark.parametrize(
    ("address", "environ"),
    [
        ("s3://models/a", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}),
        ("az://models/a", {"AZURE_CLIENT_SECRET": "the-secret"}),
        ("az://models/a", {"AZURE_CLIENT_ID": "me", "AZURE_CLIENT_SECRET": "the-secret"}),
        ("az://models/a", {"AZURE_TENANT_ID": "us", "AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}),
    ],
)
async def test_half_a_set_of_keys_is_none(address: str, environ: dict[str, str]) -> None:
    """With that alone, obstore would turn to the metadata address of the machine, which nobody has allowed."""
    assert not is_signed(await signed(address, **environ, AZURE_STORAGE_ACCOUNT_NAME="acct"))


async def test_google(tmp_path: Path) -> None:
    """The key file of a service account signs; with anything else, the plain address is asked, perhaps with a token."""
    plain = "https://storage.googleapis.com/models/a/b.bin"
    assert str(await signed("gs://models/a/b.bin")) == plain
    file = tmp_path / "user.json"
    file.write_text(json.dumps({"type": "authorized_user", "refresh_token": "x"}))
    assert str(await signed("gs://models/a/b.bin", GOOGLE_APPLICATION_CREDENTIALS=str(file))) == plain
    file.write_text(json.dumps(dict(service_account())))
    found = await signed("gs://models/a/b.bin", GOOGLE_APPLICATION_CREDENTIALS=str(file))
    assert is_signed(found)
    assert str(found.with_query(None)) == plain


@pytest.mark.parametrize("key", ["a/b.bin", "a b+c/é.bin", "100%.bin", "a%20b", "a,b@c:d'(e)*!~[=].bin"])
async def test_a_signature_for_google(key: str, tmp_path: Path) -> None:
    """It is that of Google's own description (V4 signing), in which all that is special in a name is encoded."""
    account = service_account()
    file = tmp_path / "key.json"
    file.write_text(json.dumps(dict(account)))
    address = BucketAddress("gs", "models", key)
    found = await signed(str(address), GOOGLE_APPLICATION_CREDENTIALS=str(file))
    assert found.raw_path == f"/models/{address.path}"
    assert signed_by(account, found)
    assert not signed_by(service_account("somebody"), found)
    assert not signed_by(account, found.with_path("/models/other", encoded=True, keep_query=True))


async def test_a_signature_for_google_is_checked_by_a_server(tmp_path: Path) -> None:
    """An imitation that has the public half of the key serves what is asked for with it, and nothing is sent beside."""
    account = service_account()

    def is_signed(request: HubRequest) -> bool:
        return signed_by(account, URL(f"http://{request.fields['host']}{request.target}", encoded=True))

    def environ(url: str) -> dict[str, str]:
        file = tmp_path / "key.json"
        file.write_text(json.dumps({**account, "gcs_base_url": url}))
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}

    await sync_signed(tmp_path, "gs://models/my%20voices+1.bin", is_signed, environ)


@pytest.mark.shows("S9")
async def test_an_emulator_of_google_is_asked_without_keys(tmp_path: Path) -> None:
    """As by Google's own tools; a signature would lead to Google itself."""
    file = tmp_path / "key.json"
    file.write_text(json.dumps(dict(service_account())))
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "STORAGE_EMULATOR_HOST": "127.0.0.1:9"}
    assert str(await signed("gs://models/a%20b", **environ)) == "http://127.0.0.1:9/models/a%20b"
    file.write_text(json.dumps({**service_account(), "gcs_base_url": "http://store.example"}))
    with pytest.raises(PolicyRefused, match="plain http"):
        await signed("gs://models/a", GOOGLE_APPLICATION_CREDENTIALS=str(file))


def signed_by(account: Mapping[str, str], url: URL) -> bool:
    """Whether an address bears a signature for a GET with this key.

    https://cloud.google.com/storage/docs/authentication/canonical-requests
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    query, _, signature = url.raw_query_string.rpartition("&X-Goog-Signature=")
    assert query == "&".join(sorted(query.split("&")))
    when = url.query["X-Goog-Date"]
    scope = f"{when[:8]}/auto/storage/goog4_request"
    assert url.query["X-Goog-Credential"].endswith(f".iam.gserviceaccount.com/{scope}")
    assert url.query["X-Goog-SignedHeaders"] == "host"
    request = ["GET", url.raw_path, query, "host:storage.googleapis.com", "", "host", "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    text = "\n".join([url.query["X-Goog-Algorithm"], when, scope, digest])
    key = serialization.load_pem_private_key(account["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    try:
        key.public_key().verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return url.query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"


@cache
def service_account(user: str = "nobody") -> Mapping[str, str]:
    """A key file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    email = f"{user}@example.iam.gserviceaccount.com"
    return {"type": "service_account", "private_key": pem, "private_key_id": "1", "client_email": email}


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
async def test_without_the_extra_one_line_says_how_to_install_it(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else of the program needs it."""
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(PolicyRefused, match=r"pip install 'grym-fetch\[stores\]'"):
        await signed(f"{scheme}://models/a")


@pytest.mark.shows("S7")
async def test_a_key_that_cannot_be_used_is_not_shown() -> None:
    """What the signing library says of it is not repeated."""
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_ACCOUNT_KEY": "not-base64-but-secret!"}
    with pytest.raises(PolicyRefused, match="could not be signed: AZURE_STORAGE_ACCOUNT_KEY is not base64") as refused:
        await signed("az://models/a", **environ)
    assert "secret!" not in str(refused.value)


@pytest.mark.shows("S7")
@pytest.mark.parametrize(
    "token", ["secret!", "two secret!", "https://acct.blob.example/?sv=1&sig=secret!", "sv=1&signature=secret!", "sig="]
)
async def test_a_token_for_shared_access_that_is_none(token: str) -> None:
    """It is not sent anywhere, and not shown; the address of a container with a token is none, either."""
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "acct", "AZURE_STORAGE_SAS_TOKEN": token}
    with pytest.raises(PolicyRefused, match="AZURE_STORAGE_SAS_TOKEN is not a SAS token") as refused:
        await signed("az://models/a", **environ)
    assert "secret!" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "variable", "environ"),
    [
        ("s3://models/a", "AWS_ENDPOINT_URL", {}),
        ("gs://models/a", "STORAGE_EMULATOR_HOST", {}),
        ("az://models/a", "AZURE_STORAGE_ENDPOINT", {"AZURE_STORAGE_ACCOUNT_NAME": "acct"}),
    ],
)
async def test_an_endpoint_that_is_none_is_named(address: str, variable: str, environ: dict[str, str]) -> None:
    """The error says which variable is wrong."""
    with pytest.raises(PolicyRefused, match=rf"its endpoint \({variable}\) is not an http"):
        await signed(address, **environ, **{variable: "ftp://store.example"})


async def test_keys_that_are_named_and_not_there(tmp_path: Path) -> None:
    """Whoever names a profile or a key file does not mean to ask without keys."""
    with pytest.raises(PolicyRefused, match="AWS_PROFILE names 'work', and there is no such profile"):
        await signed("s3://models/a", HOME=str(tmp_path), AWS_PROFILE="work")
    assert is_signed(await signed("s3://models/a", HOME=str(tmp_path), AWS_PROFILE="work", **KEYS))
    missing = str(tmp_path / "key.json")
    with pytest.raises(PolicyRefused, match="GOOGLE_APPLICATION_CREDENTIALS names a file that is not there"):
        await signed("gs://models/a", GOOGLE_APPLICATION_CREDENTIALS=missing)
    emulator = {"STORAGE_EMULATOR_HOST": "127.0.0.1:9"}
    assert await signed("gs://models/a", GOOGLE_APPLICATION_CREDENTIALS=missing, **emulator)
