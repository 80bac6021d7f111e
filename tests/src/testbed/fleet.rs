//! Our programs on a testbed: manager and scheduler on one machine, each seed and each node agent on its own; where there
//! are areas, each scheduler too.

use std::net::SocketAddr;
use std::path::Path;

use super::{Machine, Role, Testbed};
use crate::Failure;
use crate::cluster::{Node, Way, join_token, part_by};
use crate::process::{Binaries, Process};
use crate::wait::{self, PATIENCE};

/// What runs on the testbed; it ends when this is dropped.
#[derive(Debug)]
pub struct Fleet<'a> {
    testbed: &'a Testbed,
    manager: Process,
    /// The one beside the manager, or those of the areas.
    schedulers: Vec<Process>,
    seeds: Vec<Process>,
    nodes: Vec<Node>,
}

/// One of its processes by its name: `manager`, `scheduler`, or that of its machine.
pub type Part<'a> = (&'a Machine, &'a mut Process);

impl<'a> Fleet<'a> {
    /// Starts all of it with its data below `dir`, and waits until everybody has found the scheduler.
    pub fn start(testbed: &'a Testbed, binaries: &Binaries, dir: &Path) -> Result<Self, Failure> {
        Self::start_with(testbed, binaries, dir, &[])
    }

    /// The same with variables for the processes of one role.
    pub fn start_with(
        testbed: &'a Testbed,
        binaries: &Binaries,
        dir: &Path,
        variables: &[(&str, &str, &str)],
    ) -> Result<Self, Failure> {
        let control = testbed.first(Role::Control)?;
        let start = |machine: &Machine, name: &str, role: &str, way: Option<Way>| {
            let (listen, area) = (machine.address().to_string(), machine.area());
            let mut extra = vec!["--listen", &listen, "--name", name];
            extra.extend(area.iter().flat_map(|area| ["--area", area]));
            machine.inside(|| {
                let mut program = part_by(dir, name, role, way, &extra)?;
                let own = variables.iter().filter(|(of, ..)| *of == role);
                program.environment.extend(own.map(|(_, key, value)| (key.into(), value.into())));
                let mut process = Process::start(binaries, program)?;
                process.keep_ports(&["metrics"])?;
                Ok(process)
            })
        };
        let mut manager = start(control, "manager", "manager", None)?;
        manager.keep_ports(&["grpc"])?;
        let at = manager.address("grpc")?;
        let way = |role: &str, uses: usize| match control.address().is_loopback() {
            true => Ok(Way::Manager(at)),
            false => join_token(binaries, &dir.join("manager"), role, uses).map(Way::Join),
        };
        let to_schedule = way("scheduler", testbed.all(Role::Scheduler).count().max(1))?;
        let schedule = |machine: &Machine, name: &str| {
            let mut scheduler = start(machine, name, "scheduler", Some(to_schedule.clone()))?;
            scheduler.keep_ports(&["grpc"])?;
            Ok::<_, Failure>(scheduler)
        };
        let own = testbed.all(Role::Scheduler).map(|machine| schedule(machine, machine.name()));
        let mut schedulers = own.collect::<Result<Vec<_>, Failure>>()?;
        if schedulers.is_empty() {
            schedulers.push(schedule(control, "scheduler")?);
        }
        let to_seed = way("seed", testbed.all(Role::Seed).count())?;
        let seeds = testbed.all(Role::Seed).map(|machine| {
            let mut seed = start(machine, machine.name(), "seed", Some(to_seed.clone()))?;
            seed.keep_ports(&["grpc", "pieces"])?;
            Ok(seed)
        });
        let seeds = seeds.collect::<Result<_, Failure>>()?;
        let to_take_part = way("node", testbed.all(Role::Node).count())?;
        let mut fleet = Self { testbed, manager, schedulers, seeds, nodes: Vec::new() };
        fleet.start_nodes(binaries, dir, &to_take_part)?;
        fleet.wait_connected()?;
        Ok(fleet)
    }

    fn start_nodes(&mut self, binaries: &Binaries, dir: &Path, way: &Way) -> Result<(), Failure> {
        for machine in self.testbed.all(Role::Node) {
            let listen = machine.address().to_string();
            let (idc, area) = (machine.idc(), machine.area());
            let mut extra = vec!["--listen", &listen];
            extra.extend(idc.iter().flat_map(|idc| ["--idc", idc]));
            extra.extend(area.iter().flat_map(|area| ["--area", area]));
            let (name, way) = (machine.name(), Some(way.clone()));
            let node = machine.inside(|| Node::spawn_by(binaries, dir, name, way, &extra))?;
            self.nodes.push(node);
        }
        for node in &mut self.nodes {
            node.wait_ready()?;
            node.keep_ports()?;
        }
        Ok(())
    }

    /// Waits until the schedulers know every node, each those of its area, and the manager every seed.
    pub fn wait_connected(&mut self) -> Result<(), Failure> {
        let control = self.testbed.first(Role::Control)?;
        let members = (self.schedulers.len() + self.seeds.len()) as f64;
        wait::find("everybody is connected", PATIENCE, || {
            if let Some(ended) = self.processes().find_map(Process::has_ended) {
                return Some(Err(Failure::new(format!("one of the fleet ended: {ended}"))));
            }
            let known = |machine: &Machine, process: &Process, metric| {
                machine.inside(|| process.metric(metric)).unwrap_or_default()
            };
            let hosts: f64 = self
                .schedulers
                .iter()
                .zip(self.scheduling())
                .map(|(scheduler, machine)| known(machine, scheduler, "dfs_scheduler_streams"))
                .sum();
            let is_connected = known(control, &self.manager, "dfs_manager_members") >= members
                && hosts >= self.nodes.len() as f64;
            is_connected.then_some(Ok(()))
        })?
    }

    /// The machines of the schedulers.
    fn scheduling(&self) -> impl Iterator<Item = &'a Machine> {
        let areas = self.testbed.all(Role::Scheduler).count();
        let role = if areas == 0 { Role::Control } else { Role::Scheduler };
        self.testbed.all(role)
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let cluster = std::iter::once(&mut self.manager).chain(&mut self.schedulers);
        cluster.chain(&mut self.seeds).chain(self.nodes.iter_mut().map(Node::process_mut))
    }

    /// The node agents, each on the machine of its name.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The seeds.
    pub fn seeds(&self) -> &[Process] {
        &self.seeds
    }

    /// Where the manager is.
    pub fn manager(&self) -> Result<SocketAddr, Failure> {
        self.manager.address("grpc")
    }

    /// The numbers of all processes.
    pub fn pids(&mut self) -> Vec<u32> {
        self.processes().map(|process| process.pid()).collect()
    }

    /// The process of this name, and the machine that it runs on.
    pub fn part(&mut self, name: &str) -> Result<Part<'_>, Failure> {
        let missing = || Failure::new(format!("no process is called {name}"));
        let of = |role| self.testbed.all(role).position(|machine| machine.name() == name);
        let process = match name {
            "manager" => &mut self.manager,
            "scheduler" if of(Role::Scheduler).is_none() => &mut self.schedulers[0],
            _ => match (of(Role::Scheduler), of(Role::Seed), of(Role::Node)) {
                (Some(scheduler), ..) => &mut self.schedulers[scheduler],
                (_, Some(seed), _) => &mut self.seeds[seed],
                (.., Some(node)) => self.nodes[node].process_mut(),
                _ => return Err(missing()),
            },
        };
        let machine = match name {
            "manager" | "scheduler" => self.testbed.first(Role::Control)?,
            _ => self.testbed.machine(name)?,
        };
        Ok((machine, process))
    }

    /// Kills a process, as a crash would.
    pub fn kill(&mut self, name: &str) -> Result<(), Failure> {
        self.part(name)?.1.kill();
        Ok(())
    }

    /// Stops a process: it is there and does nothing.
    pub fn freeze(&mut self, name: &str) -> Result<(), Failure> {
        self.part(name)?.1.freeze();
        Ok(())
    }

    /// Lets a process go on.
    pub fn thaw(&mut self, name: &str) -> Result<(), Failure> {
        self.part(name)?.1.thaw();
        Ok(())
    }

    /// Starts a process again where it was, killing it first if it runs.
    pub fn restart(&mut self, name: &str) -> Result<(), Failure> {
        let (machine, process) = self.part(name)?;
        machine.inside(|| process.restart())
    }
}
