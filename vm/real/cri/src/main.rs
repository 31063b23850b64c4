//! What a kubelet says to containerd over the [Container Runtime Interface], one call a run:
//! `cri sandbox`, `cri container POD IMAGE COMMAND…`, `cri start ID`, `cri exec ID COMMAND…`,
//! `cri update ID MEMORY-BYTES`, `cri stats ID`, `cri status ID`, `cri stop ID`, `cri remove ID`,
//! `cri stop-sandbox POD`, `cri remove-sandbox POD`, `cri list`, `cri version`. It prints ids, words
//! and numbers, a line each.
//!
//! [Container Runtime Interface]: https://kubernetes.io/docs/concepts/architecture/cri/

use hyper_util::rt::TokioIo;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use std::collections::HashMap;
use std::process::ExitCode;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

type Anything = Box<dyn std::error::Error>;

/// Where containerd listens, unless `CRI_SOCKET` says otherwise.
const SOCKET: &str = "/run/containerd/containerd.sock";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let said = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Anything::from)
        .and_then(|runtime| runtime.block_on(call(&words)));
    match said {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cri: {error}");
            ExitCode::from(125)
        }
    }
}

async fn connect() -> Result<RuntimeServiceClient<Channel>, Anything> {
    // The address is for HTTP's sake: the socket is what counts.
    let channel = Endpoint::try_from("http://containerd")?
        .connect_with_connector(tower::service_fn(|_: Uri| async {
            let path = std::env::var("CRI_SOCKET").unwrap_or_else(|_| SOCKET.to_owned());
            Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?))
        }))
        .await?;
    Ok(RuntimeServiceClient::new(channel))
}

/// One call. The exit code is 0, or that of the command of `exec`.
async fn call(words: &[String]) -> Result<u8, Anything> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut cri = connect().await?;
    match words[..] {
        ["version"] => {
            let answer = cri.version(VersionRequest::default()).await?.into_inner();
            println!("{} {}", answer.runtime_name, answer.runtime_version);
        }
        ["sandbox"] => {
            let request = RunPodSandboxRequest { config: Some(pod()), runtime_handler: String::new() };
            println!("{}", cri.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id);
        }
        ["container", id, image, ref command @ ..] => {
            let request = CreateContainerRequest {
                pod_sandbox_id: id.to_owned(),
                config: Some(container(image, command)),
                sandbox_config: Some(pod()),
            };
            println!("{}", cri.create_container(request).await?.into_inner().container_id);
        }
        ["start", id] => {
            cri.start_container(StartContainerRequest { container_id: id.to_owned() }).await?;
        }
        ["exec", id, ref command @ ..] => return exec(&mut cri, id, command).await,
        ["update", id, memory] => {
            let linux = Some(resources(memory.parse()?));
            let container_id = id.to_owned();
            cri.update_container_resources(UpdateContainerResourcesRequest {
                container_id,
                linux,
                ..Default::default()
            })
            .await?;
        }
        ["stop", id] => {
            cri.stop_container(StopContainerRequest { container_id: id.to_owned(), timeout: 10 }).await?;
        }
        ["remove", id] => {
            cri.remove_container(RemoveContainerRequest { container_id: id.to_owned() }).await?;
        }
        ["stop-sandbox", id] => {
            cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }).await?;
        }
        ["remove-sandbox", id] => {
            cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }).await?;
        }
        _ => look(&mut cri, &words).await?,
    }
    Ok(0)
}

/// The calls that change nothing.
async fn look(cri: &mut RuntimeServiceClient<Channel>, words: &[&str]) -> Result<(), Anything> {
    match words {
        ["status", id] => {
            let request = ContainerStatusRequest { container_id: (*id).to_owned(), verbose: false };
            let status = cri.container_status(request).await?.into_inner().status.ok_or("no status")?;
            println!("{:?} {}", status.state(), status.exit_code);
        }
        ["stats", id] => {
            let request = ContainerStatsRequest { container_id: (*id).to_owned() };
            let stats = cri.container_stats(request).await?.into_inner().stats.ok_or("no stats")?;
            let memory = stats.memory.and_then(|memory| memory.working_set_bytes).ok_or("no memory")?;
            let time = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).ok_or("no CPU time")?;
            println!("memory {} cpu {}", memory.value, time.value);
        }
        ["list"] => {
            for one in cri.list_containers(ListContainersRequest::default()).await?.into_inner().containers {
                println!("container {} {:?}", one.id, one.state());
            }
            for one in cri.list_pod_sandbox(ListPodSandboxRequest::default()).await?.into_inner().items {
                println!("sandbox {} {:?}", one.id, one.state());
            }
        }
        _ => return Err(format!("no such call: {words:?}; src/main.rs begins with a list").into()),
    }
    Ok(())
}

async fn exec(cri: &mut RuntimeServiceClient<Channel>, id: &str, command: &[&str]) -> Result<u8, Anything> {
    use std::io::Write;
    let request = ExecSyncRequest { container_id: id.to_owned(), cmd: owned(command), timeout: 60 };
    let answer = cri.exec_sync(request).await?.into_inner();
    std::io::stdout().write_all(&answer.stdout)?;
    std::io::stderr().write_all(&answer.stderr)?;
    Ok(u8::try_from(answer.exit_code).unwrap_or(125))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A pod with a network of its own and a cgroup of its own, as a kubelet makes them.
fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "pod".into(),
            uid: "pod-1".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "pod".into(),
        log_directory: "/var/log/pods".into(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: std::env::var("CGROUP_PARENT").unwrap_or_else(|_| "/kubepods-pod1".into()),
            sysctls: HashMap::from([("net.core.somaxconn".into(), "4242".into())]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container with a limit of 64 MiB, two capabilities less, and no way to new privileges.
fn container(image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: "web".into(), attempt: 0 }),
        image: Some(ImageSpec { image: image.to_owned(), ..Default::default() }),
        command: owned(command),
        envs: vec![KeyValue { key: "ANSWER".into(), value: "yes".into() }],
        log_path: "web.log".into(),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources(64 << 20)),
            security_context: Some(LinuxContainerSecurityContext {
                capabilities: Some(Capability {
                    drop_capabilities: owned(&["NET_RAW", "MKNOD"]),
                    ..Default::default()
                }),
                no_new_privs: true,
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn resources(memory_limit_in_bytes: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        memory_limit_in_bytes,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        ..Default::default()
    }
}
