"""The ground floor: files, processes, plain data, run folders, paths, times."""
