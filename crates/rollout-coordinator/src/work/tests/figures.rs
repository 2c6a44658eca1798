//! How fast the work thread is, for people.

use std::time::Instant;

use super::*;

/// Time spent on lines at the coordinator's end.
#[derive(Default)]
struct Spent(Duration);

impl Spent {
    fn here<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        self.0 += began.elapsed();
        done
    }
}

/// What each thread of this process has had of the processors, and the process's memory at its peak,
/// where the system tells.
fn threads() -> String {
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut told = String::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = read(&task.path().join("stat"));
        let after: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = after.iter().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        let name = read(&task.path().join("comm"));
        told += &format!("{} {} ms, ", name.trim(), ticks * 10);
    }
    let status = read(std::path::Path::new("/proc/self/status"));
    told + status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default()
}

/// Figures, for people: `cargo test --release -p rollout-coordinator -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures and judges nothing"]
async fn a_million_items_committed_durably() {
    const ITEMS: u64 = 1_000_000;
    let mut rig = Rig::new(2);
    let work = rig.work();
    let limits = JobLimits { batch: 512, ..JobLimits::default() };
    let job = submit(&work, JobSpec { limits, ..spec(ITEMS) }).await;
    let began = Instant::now();
    let spent = Arc::new(Mutex::new(Spent::default()));
    let mut hands = tokio::task::JoinSet::new();
    for at in 0..2 {
        let mut hand = rig.worker(at).await;
        let spent = Arc::clone(&spent);
        hands.spawn(async move {
            hand.want(4_096).await;
            while let Some(down) = hand.told.recv().await {
                // Both ways as lines, as a coordinator and a worker of two processes have them.
                let line = spent.lock().unwrap().here(|| serde_json::to_vec(&down).unwrap());
                let down: WorkDown = serde_json::from_slice(&line).unwrap();
                let WorkDown::Grant { attempt, first, count, .. } = down else { continue };
                let leases = (first..first + u64::from(count)).map(|item| Lease { item, attempt });
                hand.seq += 1;
                let outcomes = leases.map(result).collect();
                let line =
                    serde_json::to_vec(&WorkUp::Done { seq: hand.seq, job, outcomes }).unwrap();
                let up = spent.lock().unwrap().here(|| serde_json::from_slice(&line).unwrap());
                hand.sink.send(up).await.unwrap();
                hand.want(count).await;
            }
        });
    }
    let mut follow = work.follow(job, 0).await.unwrap();
    let (mut followed, mut half) = (0, None);
    while let Some(line) = follow.next().await.unwrap() {
        spent.lock().unwrap().here(|| serde_json::to_vec(&line).unwrap());
        if let Followed::Committed { items, .. } = line {
            followed += items.len() as u64;
            if followed >= ITEMS / 2 {
                half.get_or_insert_with(|| began.elapsed());
            }
        }
    }
    println!("lines of the coordinator: {:?}; {}", spent.lock().unwrap().0, threads());
    let (all, half) = (began.elapsed(), half.unwrap());
    println!("{followed} items in {all:?}, the first half of them in {half:?}");
    hands.shutdown().await;
    drop((work, follow));
    rig.thread.take().unwrap().stop().await.unwrap().unwrap();
    let began = Instant::now();
    rig.start();
    println!("the next term starts in {:?}", began.elapsed());
}
