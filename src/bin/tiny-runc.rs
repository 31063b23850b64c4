//! `tiny-runc`: runc's command line, for engines such as podman and containerd. What it does is in the
//! library: `src/oci`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tiny_docker_rs::oci::main())
}
