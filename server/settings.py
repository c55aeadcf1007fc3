"""The settings of the server and the engine, by flag or GRAM_* environment variable. All defaults stand here."""

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gram.server.catalog import bundled_models, checkpoints

Device = Literal["auto", "cpu", "cuda"]
LogFormat = Literal["text", "json"]
Dtype = Literal["auto", "bfloat16", "float32"]
Count = Annotated[int, Field(gt=0)]

FROM_ENVIRONMENT = SettingsConfigDict(env_prefix="GRAM_", extra="ignore")


def _each(folders: list[Path]) -> list[Path]:
    return [checkpoint for folder in folders for checkpoint in checkpoints(folder)]


class DeviceError(ValueError):
    """The device does not exist or has too little memory; the message says what to do."""


class EngineSettings(BaseSettings):
    """Where and how the engine computes."""

    model_config = FROM_ENVIRONMENT

    model: Annotated[list[Path], AfterValidator(_each)] = Field(
        default_factory=bundled_models,
        description="checkpoint folders, folders of them, or hf:OWNER/NAME@REVISION (default: all bundled ones)",
    )
    device: Device = Field("auto", description="auto takes a CUDA GPU if there is one")
    dtype: Dtype = Field("auto", description="auto takes bfloat16 if the machine multiplies in it natively, else float32")
    slots: Count | None = Field(
        None,
        description="trajectories in the device's memory at a time (default: 256 on a GPU; on a CPU 16 for each thread, or 32 "
        "if a server measures at its start that this is clearly faster)",
    )
    threads: Count | None = Field(
        None,
        description="computing threads on a CPU (default: one for each CPU that the process may use, or for every second one "
        "if a server measures at its start that this is clearly faster)",
    )

    def for_checkpoint(self, folder: Path) -> "EngineSettings":
        """The settings of the engine alone, with this one checkpoint."""
        settings = self.model_dump(include=set(EngineSettings.model_fields))
        return EngineSettings.model_validate({**settings, "model": [folder]})


class JobSettings(BaseSettings):
    """Where jobs are kept, and how much of them."""

    model_config = FROM_ENVIRONMENT

    jobs: SecretStr | None = Field(
        None,
        description="where jobs are kept: a file, or a postgresql:// URL, which several servers may share (default: a file in "
        "the user's folder for state)",
    )
    max_jobs: Count = Field(1000, description="jobs that a key may have, done or not; without keys, all clients together")
    max_job_puzzles: Count = Field(100_000, description="puzzles of a job")
    max_upload_bytes: Count = Field(67_108_864, description="largest file that a job may be made of, also when it is unpacked")
    max_jobs_bytes: Count = Field(
        4_294_967_296, description="bytes of puzzles and results of all jobs; at more, new ones get 507 and running ones wait"
    )
    job_seconds: Count = Field(604_800, description="age at which a job that nobody works on is deleted with its results")


class ServerSettings(EngineSettings, JobSettings):
    """The server's own settings and limits."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=0, le=65535)
    engines: Count | None = Field(
        None, description="engine processes, each with its own slots (default: one for each GPU, or one on a CPU)"
    )
    models_root: Path | None = Field(
        None, description="folder of checkpoints that an admin may load while the server runs (default: none)"
    )
    log_format: LogFormat = Field("text", description="json writes an object a line, for a log store")
    max_trajectories: Count = Field(100_000, description="largest num_trajectories of a request")
    max_steps: Count = Field(1024, description="largest max_steps of a request")
    max_body_bytes: Count = Field(65_536, description="largest request body")
    max_timeout_seconds: Count = Field(
        600, description="time limit of a request, at which it ends with what it has; its own timeout_seconds may be shorter"
    )
    max_queued: Count = Field(
        200_000,
        description="trajectories of a model that may be waiting, running or unread by their clients; a request beyond that "
        "gets 429, unless it is alone",
    )
    max_streams: Count = Field(1000, description="streams that may be open at a time; further ones get 429")
    max_unread: Count = Field(
        10_000, description="trajectories that a stream's client may leave unread; with more, the stream is cut off"
    )
    client_seconds: Count = Field(
        15, description="time for a client to send a whole request, and to read each part of its answer"
    )
    engine_timeout_seconds: Count = Field(
        30, description="an engine without a sign of life for this long is replaced, unless it is still starting"
    )
    grace_seconds: Count = Field(30, description="time for running requests to finish after SIGTERM")
    answer_cache_bytes: int = Field(
        0, ge=0, description="memory for answers to repeat when the same request comes again with the same seed (default: none)"
    )
    ssl_certfile: Path | None = Field(
        None, description="PEM file of the server's certificate chain, for HTTPS (default: plain HTTP)"
    )
    ssl_keyfile: Path | None = Field(None, description="PEM file of the certificate's key, if it is not in the same file")
    keys_file: Path | None = Field(
        None, description="TOML file of the API keys, read again when it changes; see gram key (default: no key is needed)"
    )
    cors_origins: list[str] = Field(
        [], description="origins whose pages may call the API from a browser, such as https://example.org"
    )

    @model_validator(mode="after")
    def _certificate_can_be_read(self) -> Self:
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ValueError("--ssl-keyfile is the key of a certificate; give that, too, with --ssl-certfile")
        if self.ssl_certfile:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            except OSError as error:
                raise ValueError(f"--ssl-certfile {self.ssl_certfile} can't be used, with its key: {error}") from error
        return self

    @property
    def request_limits(self) -> dict[str, int]:
        """The largest allowed values of a request's fields."""
        return {
            "num_trajectories": self.max_trajectories,
            "max_steps": self.max_steps,
            "timeout_seconds": self.max_timeout_seconds,
        }
