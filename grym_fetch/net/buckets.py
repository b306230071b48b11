"""From the address of an object in a bucket to an https address that gives it: signed if there are keys, else plain.

Rules: keys come from where the store's own tools find them, and travel only as a signature, over https or to loopback.
The address where a cloud hands out the credentials of a machine is asked only if ``GRYM_FETCH_INSTANCE_ROLE`` says so.
obstore signs; it is imported when a bucket is asked for.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

from yarl import URL

from grym_fetch.core.addresses import is_loopback, parse_address
from grym_fetch.core.buckets import INSTANCE_ROLE, BucketAddress, bucket_advice
from grym_fetch.core.errors import PolicyRefused
from grym_fetch.core.text import safe_text
from grym_fetch.core.variables import read_flag
from grym_fetch.net.profiles import find_s3_access

SIGNED_FOR = timedelta(hours=1)
"""How long a signed address is good. After that it is signed anew, so a download may take longer."""
CLOCK_SKEW = timedelta(minutes=15)
"""A signature is good from before now on: a server's clock may be behind ours."""
GOOGLE = "https://storage.googleapis.com"
AZURE_VERSION = "2023-11-03"
INSTALL = "buckets need the extra `stores`: pip install 'grym-fetch[stores]'"

_GOOGLE_KEYS = {
    "service_account_key": "GOOGLE_SERVICE_ACCOUNT_KEY",
    "service_account": "GOOGLE_SERVICE_ACCOUNT",
}
_AZURE_KEYS = {
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"),
    "client_id": ("AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"),
    "client_secret": ("AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
    "tenant_id": ("AZURE_STORAGE_TENANT_ID", "AZURE_TENANT_ID"),
    "federated_token_file": ("AZURE_FEDERATED_TOKEN_FILE",),
}
_SAS = re.compile(r"(?=(?:.*&)?sig=)[a-z]+=[!-~]+", re.ASCII)
_ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST", "az": "AZURE_STORAGE_ENDPOINT"}
_AZURE_PROOFS = ("client_secret", "federated_token_file")
"""Each proves, together with ``client_id`` and ``tenant_id``, who asks."""


class BucketSigner:
    """Turns addresses of buckets into addresses that can be asked. The repr shows no key."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._stores: dict[tuple[str, str], Any] = {}

    async def sign(self, text: str) -> str:
        """Return an http or https address. Raises `PolicyRefused` with what is missing."""
        try:
            address = BucketAddress.parse(text)
            make = {"s3": self._s3, "gs": self._gs, "az": self._az}[address.scheme]
            return await make(address)
        except PolicyRefused:
            raise
        except ImportError:
            raise PolicyRefused(text, INSTALL) from None
        except Exception as error:  # noqa: BLE001 - obstore's own, whose text may hold what it was given
            advice = bucket_advice(text, is_signed=True)
            raise PolicyRefused(text, f"it could not be signed ({type(error).__name__}); {advice}") from None

    async def _s3(self, address: BucketAddress) -> str:
        import obstore.store

        access = find_s3_access(self._environ)
        host = f"s3.{access.region}.amazonaws.com"
        endpoint = access.endpoint or f"https://{host}"
        self._refuse_open(str(address), endpoint)
        # A name with dots in it does not fit the certificate of the host.
        is_hosted = not access.endpoint and "." not in address.bucket
        style = self._environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").strip().lower()
        is_hosted = is_hosted if not style else style in ("1", "true")
        if is_hosted:
            endpoint = endpoint.replace("://", f"://{address.bucket}.", 1)
        if not access.key_id and not self._may_ask_machine("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"):
            if access.missing_profile:
                name = safe_text(access.missing_profile, limit=80)
                raise PolicyRefused(str(address), f"AWS_PROFILE names {name!r}, and there is no such profile in ~/.aws")
            return f"{endpoint}/{address.path}" if is_hosted else f"{endpoint}/{address.bucket}/{address.path}"
        keys: dict[str, Any] = {"region": access.region, "aws_endpoint_url_s3": endpoint}
        if access.key_id:
            keys |= {"access_key_id": access.key_id, "secret_access_key": access.secret}
            keys |= {"session_token": access.session_token} if access.session_token else {}
        return await self._signed(
            address,
            lambda: obstore.store.S3Store(
                address.bucket,
                **keys,
                virtual_hosted_style_request=is_hosted,
                client_options={"allow_http": endpoint.startswith("http://")},
            ),
            is_static=bool(access.key_id),
        )

    async def _gs(self, address: BucketAddress) -> str:
        import obstore.store

        base = (self._environ.get("STORAGE_EMULATOR_HOST") or GOOGLE).rstrip("/")
        base = base if "://" in base else f"http://{base}"
        _parse_endpoint(str(address), base)
        plain = f"{base}/{address.bucket}/{address.path}"
        if base != GOOGLE:  # an emulator: as Google's own tools do, it is asked without keys
            return plain
        keys: dict[str, Any] = {
            name: self._environ[variable] for name, variable in _GOOGLE_KEYS.items() if self._environ.get(variable)
        }
        path = self._environ.get("GOOGLE_SERVICE_ACCOUNT_PATH") or self._environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if not keys and path:
            try:
                keys = {"service_account": path} if _is_service_account(path) else {}
            except FileNotFoundError:
                reason = "GOOGLE_APPLICATION_CREDENTIALS names a file that is not there"
                raise PolicyRefused(str(address), reason) from None
        if not keys and not self._may_ask_machine():
            return plain  # public, or asked with a bearer token for this host
        signed = await self._signed(
            # Google wants all that is special in a name encoded in what is signed; obstore takes the name as it is.
            BucketAddress(address.scheme, address.bucket, address.path),
            lambda: obstore.store.GCSStore(address.bucket, **keys),
            is_static=bool(keys),
        )
        self._refuse_open(str(address), signed)
        return signed

    async def _az(self, address: BucketAddress) -> str:
        import obstore.store

        get = self._environ.get
        account = get("AZURE_STORAGE_ACCOUNT_NAME") or get("AZURE_STORAGE_ACCOUNT") or ""
        if not re.fullmatch(r"[a-z0-9]{3,24}", account, re.ASCII):
            raise PolicyRefused(
                str(address), f"AZURE_STORAGE_ACCOUNT_NAME does not name an account; {bucket_advice('az:')}"
            )
        endpoint = (get("AZURE_STORAGE_ENDPOINT") or f"https://{account}.blob.core.windows.net").rstrip("/")
        self._refuse_open(str(address), endpoint)
        plain = f"{endpoint}/{quote(address.bucket)}/{address.path}"
        if sas := (get("AZURE_STORAGE_SAS_TOKEN") or get("AZURE_STORAGE_SAS_KEY") or "").strip().lstrip("?"):
            if not _SAS.fullmatch(sas):
                raise PolicyRefused(
                    str(address), "AZURE_STORAGE_SAS_TOKEN is not a SAS token: that is a query such as sv=…&se=…&sig=…"
                )
            return f"{plain}?{sas}"
        keys: dict[str, Any] = {
            name: value for name, names in _AZURE_KEYS.items() if (value := next(filter(None, map(get, names)), None))
        }
        # obstore asks the machine's metadata address where something of a set is missing.
        is_client = {"client_id", "tenant_id"} <= keys.keys() and not keys.keys().isdisjoint(_AZURE_PROOFS)
        if account_key := keys.get("account_key"):
            try:
                query = azure_signature(account, account_key, address, datetime.now(UTC))
            except ValueError:
                raise PolicyRefused(
                    str(address), "it could not be signed: AZURE_STORAGE_ACCOUNT_KEY is not base64, as such keys are"
                ) from None
            return f"{plain}?{query}"
        if not is_client and not self._may_ask_machine():
            return plain
        return await self._signed(
            address,
            lambda: obstore.store.AzureStore(
                address.bucket,
                account_name=account,
                endpoint=endpoint,
                client_options={"allow_http": endpoint.startswith("http://")},
                **keys,
            ),
            is_static=False,
        )

    async def _signed(self, address: BucketAddress, make: Any, *, is_static: bool) -> str:
        """Sign for a while. ``is_static``: the keys are at hand, so nobody needs to be asked for them."""
        import obstore

        place = (address.scheme, address.bucket)
        if (store := self._stores.get(place)) is None:
            store = self._stores[place] = make()
        if is_static:
            return str(obstore.sign(store, "GET", address.key, SIGNED_FOR))
        return str(await obstore.sign_async(store, "GET", address.key, SIGNED_FOR))

    def _may_ask_machine(self, *variables: str) -> bool:
        """Whether credentials may come from where the cloud hands them out; or these variables all name others."""
        is_named = bool(variables) and all(map(self._environ.get, variables))
        return read_flag(self._environ, INSTANCE_ROLE) or is_named

    def _refuse_open(self, address: str, endpoint: str) -> None:
        url = _parse_endpoint(address, endpoint)
        if url.scheme != "https" and not is_loopback(url):
            raise PolicyRefused(address, "its endpoint is plain http, over which no signature is sent; use https")

    def __repr__(self) -> str:
        return "BucketSigner(…)"


def _parse_endpoint(address: str, endpoint: str) -> URL:
    try:
        return parse_address(endpoint)
    except PolicyRefused as error:
        scheme = address.partition(":")[0]
        raise PolicyRefused(address, f"its endpoint ({_ENDPOINTS[scheme]}) is {error.reason}") from None


def azure_signature(account: str, account_key: str, address: BucketAddress, now: datetime) -> str:
    """Return the query that lets anybody read a blob for a while (a service SAS, as of version 2020-12-06).

    Not by obstore, which signs the encoded name of a blob where Azure wants the decoded one: no name with a space or
    a letter outside ASCII could be read. Raises `ValueError` for a key that is not base64.
    """
    start, end = ((now + shift).strftime("%Y-%m-%dT%H:%M:%SZ") for shift in (-CLOCK_SKEW, SIGNED_FOR))
    resource = f"/blob/{account}/{address.bucket}/{address.key}"
    signed = ["r", start, end, resource, "", "", "", AZURE_VERSION, "b", *[""] * 7]
    digest = hmac.digest(base64.b64decode(account_key, validate=True), "\n".join(signed).encode(), "sha256")
    fields = {"sv": AZURE_VERSION, "sr": "b", "sp": "r", "st": start, "se": end}
    return urlencode({**fields, "sig": base64.b64encode(digest).decode("ascii")})


def _is_service_account(path: str) -> bool:
    """Whether this is the key file of a service account: only that can sign. Raises `FileNotFoundError`."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            content = json.loads(file.read(1024 * 1024))
    except FileNotFoundError:
        raise
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("type") == "service_account" and "private_key" in content
