"""The ground floor: files, processes, backends, plain data, run folders, paths, times."""
