{{/* Everything that values.schema.json cannot say: contradictions, and settings that could only fail later. Each message names the
     value, what was got and what to do. */}}
{{- define "medkd.checks" -}}
{{- if .Release.IsUpgrade -}}
{{- fail (printf "helm upgrade: one release is one run, and its running stages cannot be changed. Install under a new name; or `helm uninstall %s`, then install again with --set runName=%s: that continues the run and pays nothing twice" .Release.Name (include "medkd.run" .)) -}}
{{- end -}}
{{- include "medkd.checkNames" . -}}
{{- include "medkd.checkStorage" . -}}
{{- include "medkd.checkDataset" . -}}
{{- include "medkd.checkRecordSchema" . -}}
{{- include "medkd.checkTeacher" . -}}
{{- include "medkd.checkStudent" . -}}
{{- include "medkd.checkKueue" . -}}
{{- range $stage := list "plan" "generate" "prepare" "train" "evaluate" -}}
{{- include "medkd.checkStage" (dict "root" $ "stage" $stage "values" (index $.Values $stage)) -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkNames" -}}
{{- if not (regexMatch "^[a-z]" (include "medkd.fullname" .)) -}}
{{- fail (printf "release name: got %q, but a Service's name starts with a letter before Kubernetes 1.37; choose another name or set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- if contains "." (include "medkd.fullname" .) -}}
{{- fail (printf "release name: got %q, but pods of a Job with a dot in its name have no host name; choose another name or set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkStorage" -}}
{{- $storage := .Values.storage -}}
{{- if not $storage.prefix -}}
{{- fail "storage.prefix: missing; say where runs lie, for example --set storage.prefix=s3://bucket/runs" -}}
{{- end -}}
{{- if hasPrefix "/" $storage.prefix -}}
{{- if not $storage.existingClaim -}}
{{- fail (printf "storage.existingClaim: missing; storage.prefix %s is a folder, so name the ReadWriteMany claim it lies in, or use s3://bucket/path" $storage.prefix) -}}
{{- end -}}
{{- if not (hasPrefix (printf "%s/" $storage.mountPath) (printf "%s/" $storage.prefix)) -}}
{{- fail (printf "storage.prefix: got %s, expected a folder below storage.mountPath %s" $storage.prefix $storage.mountPath) -}}
{{- end -}}
{{- else if $storage.existingClaim -}}
{{- fail (printf "storage.existingClaim: got %s, but storage.prefix %s is S3; keep one of them" $storage.existingClaim $storage.prefix) -}}
{{- end -}}
{{- if and $storage.encryption.type (not (hasPrefix "s3://" $storage.prefix)) -}}
{{- fail (printf "storage.encryption.type: got %s, but storage.prefix %s is no S3; encrypt the claim's volume instead" $storage.encryption.type $storage.prefix) -}}
{{- end -}}
{{- if and $storage.encryption.kmsKeyId (not (hasPrefix "aws:kms" $storage.encryption.type)) -}}
{{- fail (printf "storage.encryption.kmsKeyId: got a key while storage.encryption.type is %q; set it to aws:kms or remove the key" $storage.encryption.type) -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkDataset" -}}
{{- range .Values.dataset.from -}}
{{- if or (eq . (include "medkd.run" $)) (eq . (include "medkd.prefix" $)) -}}
{{- fail (printf "dataset.from: got %s, which is this run itself; name another run, or set runName" .) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Only that it is a file of JSON and no path; what it says is checked by stage plan, before anything is paid. */}}
{{- define "medkd.checkRecordSchema" -}}
{{- with .Values.plan.recordSchema -}}
{{- if not (hasKey (fromJson .) "properties") -}}
{{- fail "plan.recordSchema: not the text of a JSON Schema with properties; pass a file's by --set-file plan.recordSchema=PATH" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkTeacher" -}}
{{- $teachers := (include "medkd.models" . | fromJson).teacher_models -}}
{{- $known := keys $teachers | sortAlpha | join ", " -}}
{{- $conversations := .Values.conversations -}}
{{- if and (not $conversations.files) (or $conversations.recordColumn $conversations.idColumn $conversations.topicColumn $conversations.goldColumn) -}}
{{- fail "conversations.files: missing, while a column of conversations is set; name the files or remove the column" -}}
{{- end -}}
{{- if and $conversations.files (not (include "medkd.containsPhi" .)) -}}
{{- fail "conversations.containsPhi: missing; say yes if conversations.files hold patient data, no if they are invented or de-identified" -}}
{{- end -}}
{{- if and (include "medkd.asksTeacher" .) (not .Values.teacher.name) -}}
{{- fail (printf "teacher.name: missing; known: %s" $known) -}}
{{- end -}}
{{- $name := include "medkd.teacher" . -}}
{{- if not (hasKey $teachers $name) -}}
{{- fail (printf "teacher.name: got %q, known: %s" $name $known) -}}
{{- end -}}
{{- if include "medkd.asksTeacher" . -}}
{{- include "medkd.checkAskedTeacher" (dict "root" . "name" $name "teacher" (index $teachers $name)) -}}
{{- end -}}
{{- end }}

{{/* Not empty where a teacher's model has a price: its own, or one of its table by name or by the beginning of names. */}}
{{- define "medkd.teacherPrice" -}}
{{- $model := toString .model -}}
{{- $tables := list (.prices | default dict) -}}
{{- range $name, $entry := .models | default dict -}}
{{- if or (eq $name $model) (and (hasSuffix "*" $name) (hasPrefix (trimSuffix "*" $name) $model)) -}}
{{- $tables = append $tables ($entry.prices | default dict) -}}
{{- end -}}
{{- end -}}
{{- range $tables -}}
{{- if or .input .output -}}priced{{- end -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkAskedTeacher" -}}
{{- $values := .root.Values.teacher -}}
{{- if and (kindIs "invalid" $values.budgetUsd) (include "medkd.teacherPrice" .teacher) -}}
{{- fail (printf "teacher.budgetUsd: missing; teacher %s has a price, so say what the run may cost at most in US dollars" .name) -}}
{{- end -}}
{{- if and (eq (.teacher.output_terms | default "open") "restricted") (not .teacher.terms_acknowledged) -}}
{{- fail (printf "models.overrides.teacher_models.%s.terms_acknowledged: got false; this provider's terms restrict training models on its output. Read them, then set it to true, or use a teacher with open terms" .name) -}}
{{- end -}}
{{- if and (eq (include "medkd.containsPhi" .root) "yes") (not .teacher.phi_agreement) -}}
{{- fail (printf "conversations.containsPhi: got yes, but teacher %s is not marked for patient data. Set models.overrides.teacher_models.%s.phi_agreement to true if your agreement with the provider covers them, or use a teacher of your own" .name .name) -}}
{{- end -}}
{{- if and .teacher.api_key_env (ne (.teacher.auth | default "bearer") "none") (not $values.existingSecret) (not $values.keyProvided) -}}
{{- fail (printf "teacher.existingSecret: missing; teacher %s needs %s: kubectl create secret generic teacher --from-literal=%s=..., or set teacher.keyProvided" .name .teacher.api_key_env .teacher.api_key_env) -}}
{{- end -}}
{{- if and (not $values.baseUrl) (regexMatch "^https?://(localhost|127\\.)" (toString .teacher.base_url)) -}}
{{- fail (printf "teacher.baseUrl: missing; teacher %s is configured at %s, which no pod reaches" .name .teacher.base_url) -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkStudent" -}}
{{- $students := (include "medkd.models" . | fromJson).student_models -}}
{{- $name := .Values.student.name -}}
{{- if not (hasKey $students $name) -}}
{{- fail (printf "student.name: got %q, known: %s" $name (keys $students | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $billions := include "medkd.billions" . | float64 -}}
{{- if ge $billions 1.0 -}}
{{- if eq (int .Values.train.gpusPerNode) 0 -}}
{{- fail (printf "train.gpusPerNode: got 0, but student %s has %v billion parameters or more; give it GPUs or choose a smaller student" $name $billions) -}}
{{- end -}}
{{- if eq (include "medkd.evaluateGpus" . | int) 0 -}}
{{- fail (printf "evaluate.gpus: got 0, but student %s has %v billion parameters or more; give it a GPU or choose a smaller student" $name $billions) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.train.gpuMemoryGib (eq (int .Values.train.gpusPerNode) 0) -}}
{{- fail (printf "train.gpuMemoryGib: got %v, but train.gpusPerNode is 0; remove it, or give the trainers GPUs" .Values.train.gpuMemoryGib) -}}
{{- end -}}
{{- if and .Values.plan.numSamples (lt (int64 .Values.plan.numSamples) (int64 .Values.generate.shards)) -}}
{{- fail (printf "generate.shards: got %d, expected at most plan.numSamples = %d" (int64 .Values.generate.shards) (int64 .Values.plan.numSamples)) -}}
{{- end -}}
{{- if ge (int64 .Values.generate.maxFailedShards) (int64 .Values.generate.shards) -}}
{{- fail (printf "generate.maxFailedShards: got %d, expected fewer than generate.shards = %d" (int64 .Values.generate.maxFailedShards) (int64 .Values.generate.shards)) -}}
{{- end -}}
{{- end }}

{{- define "medkd.checkKueue" -}}
{{- $kueue := .Values.kueue -}}
{{- $queued := $kueue.queueName -}}
{{- range $stage, $settings := $kueue.stages }}{{ $queued = or $queued $settings.queueName }}{{ end -}}
{{- if and $queued (not $kueue.releaseMode) -}}
{{- fail "kueue.releaseMode: missing; with a queue say `gate` (Kueue 0.17 with the feature AdmissionGatedBy, 0.19 by default) or `label` (older Kueue)" -}}
{{- end -}}
{{- if and $kueue.releaseMode (not $queued) -}}
{{- fail (printf "kueue.queueName: missing, while kueue.releaseMode is %s; name the LocalQueue or remove the mode" $kueue.releaseMode) -}}
{{- end -}}
{{- if and $kueue.minParallelism (gt (int64 $kueue.minParallelism) (int64 .Values.generate.parallelism)) -}}
{{- fail (printf "kueue.minParallelism: got %d, expected at most generate.parallelism = %d" (int64 $kueue.minParallelism) (int64 .Values.generate.parallelism)) -}}
{{- end -}}
{{- end }}

{{/* Sizes of one stage's volumes against its limits. Takes a dict: root, stage, values. */}}
{{- define "medkd.checkStage" -}}
{{- $limits := .values.resources.limits | default dict -}}
{{- $gpuResource := .root.Values.train.gpuResource -}}
{{- if or (hasKey $limits $gpuResource) (hasKey (.values.resources.requests | default dict) $gpuResource) -}}
{{- fail (printf "%s.resources: has %s; set train.gpusPerNode and evaluate.gpus instead" .stage $gpuResource) -}}
{{- end -}}
{{- $ephemeral := index $limits "ephemeral-storage" -}}
{{- if and $ephemeral (gt (include "medkd.bytes" .values.scratchSize | int64) (include "medkd.bytes" $ephemeral | int64)) -}}
{{- fail (printf "%s.scratchSize: got %s, expected at most the limit of ephemeral-storage, %v, or pods are evicted" .stage .values.scratchSize $ephemeral) -}}
{{- end -}}
{{- if and .values.sharedMemory $limits.memory (gt (include "medkd.bytes" .values.sharedMemory | int64) (include "medkd.bytes" $limits.memory | int64)) -}}
{{- fail (printf "%s.sharedMemory: got %s, expected less than the memory limit, %v, which it counts against" .stage .values.sharedMemory $limits.memory) -}}
{{- end -}}
{{- end }}
